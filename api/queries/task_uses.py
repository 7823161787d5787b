"""Tasks of all users, and where they are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq
from typing import Any

from sqlalchemy import Select, select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries.conditions import asked_for, contains, same_word
from fractal_models.schemas.manifest import TaskType
from fractal_models.schemas.task import ProjectUser, TaskInfo, TaskMinimal, TaskRelationship
from fractal_models.tables import (
    LinkUserProjectV2,
    ProjectV2,
    TaskGroupV2,
    TaskV2,
    UserGroup,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowV2,
)

_OF_TASK = set(TaskMinimal.model_fields) & set(TaskV2.model_fields)


@dataclass(frozen=True, slots=True)
class TaskFilters:
    """Which tasks are asked for, of all that there are."""

    id: int | None = None
    version: str | None = None
    name: str | None = None
    task_type: TaskType | None = None
    category: str | None = None
    modality: str | None = None
    author: str | None = None
    resource_id: int | None = None
    owner_id: int | None = None
    task_group: str | None = None
    core: bool | None = None
    private: bool | None = None
    active: bool | None = None

    def query(self) -> Select[Any]:
        """The tasks, by their ids, as `TaskMinimal` has them."""
        group = TaskGroupV2
        where = asked_for(
            (eq, TaskV2.id, self.id),
            (eq, TaskV2.version, self.version),
            (contains, TaskV2.name, self.name),
            (eq, TaskV2.type, self.task_type),
            (same_word, TaskV2.category, self.category),
            (same_word, TaskV2.modality, self.modality),
            (contains, TaskV2.authors, self.author),
            (eq, group.resource_id, self.resource_id),
            (eq, group.user_id, self.owner_id),
            (contains, group.pkg_name, self.task_group),
            (eq, TaskV2.is_core, self.core),
            (eq, col(group.user_group_id).is_(None), self.private),
            (eq, group.active, self.active),
        )
        columns: list[Any] = [
            *(getattr(TaskV2, name) for name in _OF_TASK),
            group.pkg_name,
            group.active,
            col(UserOAuth.email).label("owner"),
            col(UserGroup.name).label("user_group"),
        ]
        return (
            select(*columns)
            .join(group, col(group.id) == col(TaskV2.taskgroupv2_id))
            .join(UserOAuth, col(UserOAuth.id) == col(group.user_id))
            .outerjoin(UserGroup, col(UserGroup.id) == col(group.user_group_id))
            .where(*where)
            .order_by(col(TaskV2.id))
        )


def unused(row: Any) -> TaskInfo:
    """A row of `TaskFilters.query`, whose uses are not known yet."""
    return TaskInfo(task=TaskMinimal.model_validate(row), relationships=[])


async def add_uses(session: AsyncSession, tasks: Sequence[TaskInfo]) -> None:
    """Tell of each task the workflows that use it, with the owners of their projects."""
    by_id = {info.task.id: info for info in tasks}
    found = await session.execute(
        select(
            col(WorkflowTaskV2.task_id),
            col(WorkflowV2.id),
            col(WorkflowV2.name),
            col(ProjectV2.id),
            col(ProjectV2.name),
        )
        .join(WorkflowV2, col(WorkflowV2.id) == col(WorkflowTaskV2.workflow_id))
        .join(ProjectV2, col(ProjectV2.id) == col(WorkflowV2.project_id))
        .where(col(WorkflowTaskV2.task_id).in_(by_id))
        .distinct()
        .order_by(col(WorkflowV2.id))
    )
    uses = found.all()
    owners = await _owners(session, {use[3] for use in uses})
    for task_id, workflow_id, workflow_name, project_id, project_name in uses:
        use = TaskRelationship(
            workflow_id=workflow_id,
            workflow_name=workflow_name,
            project_id=project_id,
            project_name=project_name,
            project_users=owners.get(project_id, []),
        )
        by_id[task_id].relationships.append(use)


async def _owners(session: AsyncSession, project_ids: set[int]) -> dict[int, list[ProjectUser]]:
    found = await session.execute(
        select(col(LinkUserProjectV2.project_id), col(UserOAuth.id), col(UserOAuth.email))
        .join(UserOAuth, col(UserOAuth.id) == col(LinkUserProjectV2.user_id))
        .where(col(LinkUserProjectV2.project_id).in_(project_ids), col(LinkUserProjectV2.is_owner))
    )
    owners: dict[int, list[ProjectUser]] = {}
    for project_id, user_id, email in found:
        owners.setdefault(project_id, []).append(ProjectUser(id=user_id, email=email))
    return owners
