"""Tasks of all users, and where they are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from sqlalchemy import Select, select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from api import lists
from api.queries.task_groups import IS_PRIVATE
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

    id: Annotated[int | None, lists.equals(TaskV2.id)] = None
    version: Annotated[str | None, lists.equals(TaskV2.version)] = None
    name: Annotated[str | None, lists.contains(TaskV2.name)] = None
    task_type: Annotated[TaskType | None, lists.equals(TaskV2.type)] = None
    category: Annotated[str | None, lists.same_word(TaskV2.category)] = None
    modality: Annotated[str | None, lists.same_word(TaskV2.modality)] = None
    author: Annotated[str | None, lists.contains(TaskV2.authors)] = None
    resource_id: Annotated[int | None, lists.equals(TaskGroupV2.resource_id)] = None
    owner_id: Annotated[int | None, lists.equals(TaskGroupV2.user_id)] = None
    task_group: Annotated[str | None, lists.contains(TaskGroupV2.pkg_name)] = None
    core: Annotated[bool | None, lists.equals(TaskV2.is_core)] = None
    private: Annotated[bool | None, lists.equals(IS_PRIVATE)] = None
    active: Annotated[bool | None, lists.equals(TaskGroupV2.active)] = None

    def query(self) -> Select[Any]:
        """The tasks, by their ids, as `TaskMinimal` has them."""
        columns: list[Any] = [
            *(getattr(TaskV2, name) for name in _OF_TASK),
            TaskGroupV2.pkg_name,
            TaskGroupV2.active,
            col(UserOAuth.email).label("owner"),
            col(UserGroup.name).label("user_group"),
        ]
        return (
            select(*columns)
            .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
            .join(UserOAuth, col(UserOAuth.id) == col(TaskGroupV2.user_id))
            .outerjoin(UserGroup, col(UserGroup.id) == col(TaskGroupV2.user_group_id))
            .where(*lists.asked_for(self))
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
