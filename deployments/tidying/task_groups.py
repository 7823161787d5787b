"""Task groups that nothing uses: named, and deleted if that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities.begin import Lifecycle
from flows.engine.client import Engine
from flows.reports.quantities import memory
from fractal_models.errors import FractalError
from fractal_models.tables import TaskGroupV2, UserOAuth

# A task group is used by the tasks of workflows, of open jobs and of templates, and by core tasks.
_UNUSED = text(
    """
    WITH used AS (
        SELECT taskgroupv2_id AS id FROM taskv2
        WHERE is_core OR id IN (SELECT task_id FROM workflowtaskv2)
        UNION
        SELECT (task->>'taskgroupv2_id')::int FROM jobv2,
            jsonb_path_query(workflow_dump, '$.task_list[*].task') AS task
        WHERE status = 'submitted'
        UNION
        SELECT taskgroupv2_id FROM taskgroupactivityv2 WHERE status IN ('pending', 'ongoing')
        UNION
        SELECT task_group.id FROM taskgroupv2 task_group
        JOIN taskv2 ON taskgroupv2_id = task_group.id
        JOIN (
            SELECT DISTINCT task->>'pkg_name' AS pkg_name, task->>'version' AS version
            FROM workflowtemplate, jsonb_path_query(data, '$.task_list[*].task') AS task
        ) AS offered ON offered.pkg_name = task_group.pkg_name AND offered.version = taskv2.version
    )
    SELECT task_group.id, pkg_name, version, email, resource.name AS resource,
        coalesce("venv_size_in_kB", 0) AS size, timestamp_last_used AS last_used
    FROM taskgroupv2 task_group
    JOIN resource ON resource.id = resource_id
    JOIN user_oauth ON user_oauth.id = task_group.user_id
    WHERE greatest(task_group.timestamp_created, timestamp_last_used) < :before
    AND task_group.id NOT IN (SELECT id FROM used WHERE id IS NOT NULL)
    ORDER BY task_group.id
    """
)


@dataclass(frozen=True)
class UnusedGroup:
    """A task group that nothing uses; `size` is that of its environment, in KiB."""

    id: int
    pkg_name: str
    version: str | None
    email: str
    resource: str
    size: int
    last_used: datetime

    def __str__(self) -> str:
        return (
            f"{self.id}: {self.pkg_name} {self.version or 'without a version'} of {self.email} on "
            f"{self.resource}, {memory(self.size)}, used last on {self.last_used:%Y-%m-%d}"
        )


async def unused_groups(session: AsyncSession, before: datetime) -> list[UnusedGroup]:
    """The task groups that nothing uses, and that nobody has used since then."""
    found = await session.execute(_UNUSED, {"before": before})
    return [UnusedGroup(**row) for row in found.mappings()]


async def delete_groups(
    session: AsyncSession, engine: Engine, groups: Sequence[UnusedGroup]
) -> list[str]:
    """Begin to delete them, as their owners would. What to tell of those that stay."""
    left = []
    for each in groups:
        group = await session.get_one(TaskGroupV2, each.id)
        owner = await session.get_one(UserOAuth, group.user_id)
        try:
            await Lifecycle(session, engine, owner).delete(group)
        except FractalError as error:
            await session.rollback()
            left.append(f"Task group {each.id}: {error}")
    return left
