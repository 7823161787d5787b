"""Who may do what: checked by the REST API, and by flow runs that begin in Prefect.

Things that a user may not see are "not found"; things that they may only see are "forbidden".
"""

from collections.abc import Iterable
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import ColumnElement, or_
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import ForbiddenError, NotFoundError
from fractal_models.tables import (
    DatasetV2,
    HistoryRun,
    HistoryUnit,
    JobV2,
    LinkUserGroup,
    LinkUserProjectV2,
    Profile,
    ProjectV2,
    Resource,
    Schedule,
    TaskGroupActivityV2,
    TaskGroupV2,
    TaskV2,
    UserGroup,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowTemplate,
    WorkflowV2,
)

Right = Literal["r", "w", "x", "owner"]
_TO = {"w": "change", "x": "run jobs in", "owner": "delete or share"}

# It grows with each job, so it is loaded only when asked for.
_HISTORY: Any = DatasetV2.history
_WITHOUT_HISTORY = defer(_HISTORY, raiseload=True)


class _Numbered(Protocol):
    id: int | None


Row = TypeVar("Row", bound=_Numbered)

_NAMES: dict[type[_Numbered], str] = {
    HistoryRun: "History run",
    HistoryUnit: "History unit",
    JobV2: "Job",
    Profile: "Profile",
    ProjectV2: "Project",
    Resource: "Resource",
    Schedule: "Schedule",
    TaskGroupActivityV2: "Task group activity",
    TaskGroupV2: "Task group",
    TaskV2: "Task",
    UserGroup: "Group",
    UserOAuth: "User",
    WorkflowTaskV2: "Workflow task",
    WorkflowTemplate: "Template",
    WorkflowV2: "Workflow",
}


async def find(session: AsyncSession, table: type[Row], row_id: int, *where: Any) -> Row:
    """A row of a table that passes these conditions, or else whoever it belongs to.

    Raises:
        NotFoundError: there is none with this id.
    """
    found = await session.exec(select(table).where(table.id == row_id, *where))
    if (row := found.unique().first()) is None:
        raise NotFoundError(_NAMES[table], row_id)
    return row


def require_owner(row: TaskGroupV2 | WorkflowTemplate, user: UserOAuth) -> None:
    """Raise ForbiddenError if it belongs to another user."""
    if row.user_id != user.id:
        raise ForbiddenError(f"{_NAMES[type(row)]} {row.id} belongs to another user.")


async def require_membership(session: AsyncSession, user: UserOAuth, group_id: int) -> None:
    """Raise ForbiddenError for a group that a user is not in: one shares only with one's own."""
    if await session.get(LinkUserGroup, (group_id, user.id)) is None:
        raise ForbiddenError(f"You are not in user group {group_id}.")


def require_superuser(user: UserOAuth) -> None:
    """Raise ForbiddenError for users who are no administrators."""
    if not user.is_superuser:
        raise ForbiddenError("Only administrators may do this.")


def require_verified(user: UserOAuth) -> None:
    """Raise ForbiddenError if no administrator has verified the user yet."""
    if not user.is_verified:
        raise ForbiddenError(f"User {user.email} is not verified: ask an administrator.")


def require_profile(user: UserOAuth) -> None:
    """Raise ForbiddenError if the user has no profile, without which nothing can be run."""
    if user.profile_id is None:
        raise ForbiddenError(
            f"User {user.email} has no profile, and so no resource to run on: "
            "ask an administrator for one."
        )


def require_no_guest(user: UserOAuth) -> None:
    """Raise ForbiddenError for guest users: they may not change anything, even themselves."""
    if user.is_guest:
        raise ForbiddenError(f"User {user.email} is a guest, who may look but not change anything.")


async def user_named(session: AsyncSession, email: str) -> UserOAuth:
    """The user with this email, who may use the platform.

    Raises:
        NotFoundError: no active user has this email.
        ForbiddenError: the user is not verified, or has no profile.
    """
    found = await session.exec(select(UserOAuth).where(UserOAuth.email == email))
    user = found.unique().first()
    if user is None or not user.is_active:
        raise NotFoundError("User", email)
    require_verified(user)
    require_profile(user)
    return user


async def project_with_right(
    session: AsyncSession, user: UserOAuth, project_id: int, right: Right
) -> ProjectV2:
    """The project with this id, in which the user has this right.

    Raises:
        NotFoundError: there is no such project, or the user does not take part in it.
        ForbiddenError: the user takes part in the project, but without this right.
    """
    found = await session.exec(
        select(ProjectV2, LinkUserProjectV2)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .where(
            ProjectV2.id == project_id,
            LinkUserProjectV2.user_id == user.id,
            col(LinkUserProjectV2.is_verified),
        )
    )
    row = found.first()
    if row is None:
        raise NotFoundError("Project", project_id)
    project, link = row
    permitted = link.is_owner if right == "owner" else right in link.permissions
    if right != "r":
        require_no_guest(user)
    if not permitted:
        raise ForbiddenError(f"You may not {_TO[right]} project {project_id}.")
    return project


async def dataset_in(session: AsyncSession, project: ProjectV2, dataset_id: int) -> DatasetV2:
    """A dataset of a project, without its history.

    Raises:
        NotFoundError: the project has no such dataset.
    """
    found = await session.exec(
        select(DatasetV2)
        .where(DatasetV2.id == dataset_id, DatasetV2.project_id == project.id)
        .options(_WITHOUT_HISTORY)
    )
    if (dataset := found.first()) is None:
        raise NotFoundError("Dataset", dataset_id)
    return dataset


async def workflow_in(session: AsyncSession, project: ProjectV2, workflow_id: int) -> WorkflowV2:
    """A workflow of a project.

    Raises:
        NotFoundError: the project has no such workflow.
    """
    return await find(session, WorkflowV2, workflow_id, WorkflowV2.project_id == project.id)


def shared_with(
    user: UserOAuth, table: type[TaskGroupV2] | type[WorkflowTemplate]
) -> ColumnElement[bool]:
    """SQL condition: the user owns the row, or it is shared with one of the user's groups."""
    my_groups = select(LinkUserGroup.group_id).where(LinkUserGroup.user_id == user.id)
    return or_(col(table.user_id) == user.id, col(table.user_group_id).in_(my_groups))


def visible_to(user: UserOAuth) -> ColumnElement[bool]:
    """The user's own task groups and those shared with their groups, on their resource."""
    my_resource = select(Profile.resource_id).where(Profile.id == user.profile_id)
    return shared_with(user, TaskGroupV2) & col(TaskGroupV2.resource_id).in_(my_resource)


async def names_not_shared_with(
    session: AsyncSession, user: UserOAuth, workflow_tasks: Iterable[WorkflowTaskV2]
) -> list[str]:
    """The names of those tasks that the user may not run."""
    by_group = {task.task.taskgroupv2_id: task.task.name for task in workflow_tasks}
    shared = await session.exec(
        select(TaskGroupV2.id).where(
            col(TaskGroupV2.id).in_(by_group), shared_with(user, TaskGroupV2)
        )
    )
    return sorted(by_group[group_id] for group_id in by_group.keys() - set(shared))
