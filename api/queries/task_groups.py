"""Task groups and their tasks: which a user sees, and whether they can run."""

from collections.abc import Iterable
from typing import Any

from packaging.version import InvalidVersion, Version
from sqlalchemy import ColumnElement
from sqlalchemy.orm import load_only, selectinload
from sqlmodel import col, exists, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.errors import unprocessable
from fractal_models.database import saved_id
from fractal_models.rights import NotFoundError, shared_with
from fractal_models.schemas.task import TaskGroupRead, TaskGroupReadSlim, TaskReadSlim
from fractal_models.tables import (
    Profile,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowV2,
)

_TASK_LIST: Any = TaskGroupV2.task_list
_SLIM_TASK = [getattr(TaskV2, name) for name in (*TaskReadSlim.model_fields, "taskgroupv2_id")]


def visible_to(user: UserOAuth) -> ColumnElement[bool]:
    """The user's own task groups and those shared with their groups, on their resource."""
    my_resource = select(Profile.resource_id).where(Profile.id == user.profile_id)
    return shared_with(user) & col(TaskGroupV2.resource_id).in_(my_resource)


async def task_groups_visible_to(
    session: AsyncSession, user: UserOAuth, *where: Any
) -> list[tuple[str, list[TaskGroupReadSlim]]]:
    """Task groups by package name, each with its newest version first."""
    found = await session.exec(
        select(TaskGroupV2, UserOAuth.email, _in_use())
        .join(UserOAuth, col(UserOAuth.id) == col(TaskGroupV2.user_id))
        .where(visible_to(user), *where)
        .options(selectinload(_TASK_LIST).load_only(*_SLIM_TASK, raiseload=True))
        .order_by(func.lower(TaskGroupV2.pkg_name), col(TaskGroupV2.id).desc())
    )
    packages: dict[str, list[TaskGroupReadSlim]] = {}
    for group, email, in_use in found:
        slim = TaskGroupReadSlim.model_validate(_fields(group, email, in_use))
        packages.setdefault(group.pkg_name, []).append(slim)
    for groups in packages.values():
        groups.sort(key=lambda group: comparable(group.version), reverse=True)
    return list(packages.items())


def comparable(version: str) -> tuple[bool, Version | str]:
    """Versions that follow the rules come after any others."""
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, version


async def require_new(session: AsyncSession, group: TaskGroupV2) -> None:
    """Keep this package version unique per user, and per user group and resource.

    The lock is held until the transaction ends, against the same request twice at a time.

    Raises:
        HTTPException: 422, there is one already.
    """
    key = f"{group.pkg_name} {group.version}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(key))))
    same = [
        TaskGroupV2.pkg_name == group.pkg_name,
        TaskGroupV2.version == group.version,
        TaskGroupV2.resource_id == group.resource_id,
    ]
    mine = await session.exec(
        select(TaskGroupV2.id).where(*same, TaskGroupV2.user_id == group.user_id)
    )
    if (found := mine.first()) is not None:
        raise unprocessable(f"You have {key} already: task group {found}.")
    shared = await session.exec(
        select(TaskGroupV2.id).where(
            *same,
            col(TaskGroupV2.user_group_id).is_not(None),
            TaskGroupV2.user_group_id == group.user_group_id,
        )
    )
    if (found := shared.first()) is not None:
        raise unprocessable(f"{key} is shared with this user group already: task group {found}.")


async def describe(session: AsyncSession, group: TaskGroupV2) -> TaskGroupRead:
    """A task group as clients see it."""
    found = await session.exec(
        select(UserOAuth.email, _in_use())
        .select_from(TaskGroupV2)
        .join(UserOAuth, col(UserOAuth.id) == col(TaskGroupV2.user_id))
        .where(TaskGroupV2.id == group.id)
    )
    return TaskGroupRead.model_validate(_fields(group, *found.one()))


async def tasks_visible_to(session: AsyncSession, user: UserOAuth) -> list[TaskV2]:
    """The tasks that a user sees, without the schemas of their arguments."""
    found = await session.exec(
        select(TaskV2)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(visible_to(user))
        .options(load_only(*_SLIM_TASK, raiseload=True))
        .order_by(col(TaskV2.id))
    )
    return list(found)


async def usable_tasks(
    session: AsyncSession, user: UserOAuth, resource_id: int, task_ids: Iterable[int]
) -> dict[int, TaskV2]:
    """Tasks by id, to be put into workflows of projects on a resource.

    Raises:
        HTTPException: 404, the user sees no such task; 422, its group is inactive or elsewhere.
    """
    found = await session.exec(
        select(TaskV2, TaskGroupV2)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(col(TaskV2.id).in_(task_ids), visible_to(user))
    )
    tasks: dict[int, TaskV2] = {}
    for task, group in found:
        name = f"Task {task.id} ({task.name}, of {group.pkg_name} {group.version})"
        if not group.active:
            raise unprocessable(f"{name} is not active.")
        if group.resource_id != resource_id:
            raise unprocessable(f"{name} is not on the resource of the project.")
        tasks[saved_id(task)] = task
    for task_id in task_ids:
        if task_id not in tasks:
            raise NotFoundError("Task", task_id)
    return tasks


async def reasons_not_to_run(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> dict[int | None, str]:
    """By id of a workflow task, why its task cannot be run, or not by this user."""
    group_ids = {task.task.taskgroupv2_id for task in workflow.task_list}
    found = await session.exec(
        select(TaskGroupV2.id, TaskGroupV2.active, visible_to(user)).where(
            col(TaskGroupV2.id).in_(group_ids)
        )
    )
    reasons = {
        group_id: "The task is not active." if not active else "The task is not shared with you."
        for group_id, active, visible in found
        if not (active and visible)
    }
    return {
        task.id: reasons[task.task.taskgroupv2_id]
        for task in workflow.task_list
        if task.task.taskgroupv2_id in reasons
    }


def _in_use() -> ColumnElement[bool]:
    return exists(
        select(WorkflowTaskV2.id)
        .join(TaskV2, col(TaskV2.id) == col(WorkflowTaskV2.task_id))
        .where(TaskV2.taskgroupv2_id == TaskGroupV2.id)
        .correlate(TaskGroupV2)
    )


def _fields(group: TaskGroupV2, user_email: str, in_use: bool) -> dict[str, Any]:
    return {
        **group.model_dump(),
        "task_list": group.task_list,
        "user_email": user_email,
        "in_use": in_use,
    }
