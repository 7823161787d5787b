"""Activities of task groups: which there were, which may begin, and what is written of those."""

from dataclasses import dataclass
from operator import eq, ge

from pydantic import AwareDatetime
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from api.queries.conditions import asked_for, contains
from flows.activities.activity import OPEN
from flows.activities.commands import interpreter_of
from flows.activities.pixi_commands import pixi_version_of
from flows.activities.site import open_site
from fractal_models.database import release
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.schemas.task import ActivityAction, ActivityStatus
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2


@dataclass(frozen=True, slots=True)
class ActivityFilters:
    """Which activities are asked for."""

    task_group_activity_id: int | None = None
    taskgroupv2_id: int | None = None
    pkg_name: str | None = None
    status: ActivityStatus | None = None
    action: ActivityAction | None = None
    timestamp_started_min: AwareDatetime | None = None

    def query(self, user_id: int | None) -> SelectOfScalar[TaskGroupActivityV2]:
        """Those of one user, or of all, the newest first."""
        table = TaskGroupActivityV2
        where = asked_for(
            (eq, table.user_id, user_id),
            (eq, table.id, self.task_group_activity_id),
            (eq, table.taskgroupv2_id, self.taskgroupv2_id),
            (contains, table.pkg_name, self.pkg_name),
            (eq, table.status, self.status),
            (eq, table.action, self.action),
            (ge, table.timestamp_started, self.timestamp_started_min),
        )
        return select(table).where(*where).order_by(col(table.id).desc())


def new_activity(group: TaskGroupV2, user_id: int, action: ActivityAction) -> TaskGroupActivityV2:
    """An activity that is about to begin."""
    return TaskGroupActivityV2(
        user_id=user_id,
        taskgroupv2_id=group.id,
        pkg_name=group.pkg_name,
        version=str(group.version),
        status="pending",
        action=action,
    )


async def require_idle(session: AsyncSession, group: TaskGroupV2) -> None:
    """Keep others from a task group until the transaction ends, if nothing is done to it now.

    Raises:
        NotFoundError: it has been deleted meanwhile.
        RefusedError: it has an activity that has not ended.
    """
    locked = await session.get(TaskGroupV2, group.id, with_for_update=True, populate_existing=True)
    if locked is None:
        raise NotFoundError("Task group", group.id)
    found = await session.exec(
        select(TaskGroupActivityV2).where(
            TaskGroupActivityV2.taskgroupv2_id == group.id,
            col(TaskGroupActivityV2.status).in_(OPEN),
        )
    )
    if (activity := found.first()) is not None:
        raise RefusedError(
            f"Activity {activity.id} ({activity.action}) of task group {group.id} has not ended: "
            "wait for its end."
        )


async def has_lost_archive(session: AsyncSession, group: TaskGroupV2) -> bool:
    """Whether the file that a task group was installed from is gone; this can take long.

    It is asked before the group is locked, and no connection to the database is held meanwhile.
    """
    if group.archive_path is None:
        return False
    async with open_site(session, group) as site:
        await release(session)
        return group.archive_path not in await site.existing([group.archive_path])


async def require_repeatable(
    session: AsyncSession, group: TaskGroupV2, *, lost_archive: bool
) -> None:
    """An environment is removed, or made again, only if all that it takes is still there.

    Raises:
        RefusedError: something is missing.
    """
    if group.origin == "other":
        return  # it is not the platform's, and stays
    if group.env_info is None:
        raise RefusedError(
            f"Which versions were installed for task group {group.id} was never recorded, so its "
            "environment could not be made again: collect its package anew."
        )
    await require_installable(session, group, group.python_version, lost_archive=lost_archive)


async def require_installable(
    session: AsyncSession,
    group: TaskGroupV2,
    python_version: str | None,
    *,
    lost_archive: bool,
) -> None:
    """What its package is installed with, and from, is still there.

    Raises:
        PackageError, RefusedError: something is missing.
    """
    resource = await session.get_one(Resource, group.resource_id)
    if group.origin == "pixi":
        pixi_version_of(resource, group.pixi_version)
    else:
        interpreter_of(resource, python_version)
    if lost_archive:
        raise RefusedError(
            f"{group.archive_path} is gone, without which the environment of task group {group.id} "
            "cannot be made again: put it back, or collect it anew."
        )
