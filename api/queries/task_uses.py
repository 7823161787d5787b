"""Tasks of all users, and where they are used."""

from dataclasses import dataclass
from typing import Annotated, Any

from sqlalchemy import Select, select
from sqlalchemy.orm import aliased
from sqlmodel import col

from api import lists
from api.queries.task_groups import IS_PRIVATE
from fractal_models.json_rows import json_array, json_object
from fractal_models.schemas.manifest import TaskType
from fractal_models.schemas.task import ProjectUser, TaskMinimal, TaskRelationship
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

_OWNER = aliased(UserOAuth)
_OWNERS = (
    select(json_array(json_object(ProjectUser, UserOAuth), UserOAuth.id))
    .join(LinkUserProjectV2, col(LinkUserProjectV2.user_id) == col(UserOAuth.id))
    .where(col(LinkUserProjectV2.project_id) == ProjectV2.id, col(LinkUserProjectV2.is_owner))
    .correlate(ProjectV2)
    .scalar_subquery()
)
_USE = json_object(
    TaskRelationship,
    WorkflowV2,
    workflow_id=WorkflowV2.id,
    workflow_name=WorkflowV2.name,
    project_name=ProjectV2.name,
    project_users=_OWNERS,
)
# Of a task of another query.
_USES = (
    select(json_array(_USE, WorkflowV2.id))
    .select_from(WorkflowV2)
    .join(ProjectV2, col(ProjectV2.id) == col(WorkflowV2.project_id))
    .where(
        col(WorkflowV2.id).in_(
            select(col(WorkflowTaskV2.workflow_id))
            .where(col(WorkflowTaskV2.task_id) == TaskV2.id)
            .correlate(TaskV2)
        )
    )
    .correlate(TaskV2)
    .scalar_subquery()
)


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
        """The tasks, by their ids, as `TaskInfo` has them."""
        task = json_object(
            TaskMinimal,
            TaskV2,
            pkg_name=TaskGroupV2.pkg_name,
            active=TaskGroupV2.active,
            owner=_OWNER.email,
            user_group=UserGroup.name,
        )
        return (
            select(task.label("task"), _USES.label("relationships"))
            .select_from(TaskV2)
            .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
            .join(_OWNER, col(_OWNER.id) == col(TaskGroupV2.user_id))
            .outerjoin(UserGroup, col(UserGroup.id) == col(TaskGroupV2.user_group_id))
            .where(*lists.asked_for(self))
            .order_by(col(TaskV2.id))
        )
