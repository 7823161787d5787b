"""Task groups: the packages that tasks come from, and what was done to them."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime
from sqlmodel import col, select

from api.dependencies import (
    OwnTaskGroup,
    ReadableTaskGroup,
    SessionDep,
    VerifiedUser,
    require_membership,
)
from api.queries.task_groups import describe, task_groups_visible_to
from fractal_models.rights import NotFoundError
from fractal_models.schemas.task import (
    TaskGroupActivityRead,
    TaskGroupRead,
    TaskGroupReadSlim,
    TaskGroupUpdate,
)
from fractal_models.tables import TaskGroupActivityV2, TaskGroupV2

router = APIRouter(prefix="/api/v2/task-group", tags=["TaskGroup"])


@router.get("/")
async def list_task_groups(
    user: VerifiedUser, session: SessionDep, only_active: bool = False, only_owner: bool = False
) -> list[tuple[str, list[TaskGroupReadSlim]]]:
    """The task groups by package name, each with its newest version first."""
    where: list[Any] = []
    if only_active:
        where.append(col(TaskGroupV2.active))
    if only_owner:
        where.append(col(TaskGroupV2.user_id) == user.id)
    return await task_groups_visible_to(session, user, *where)


@router.get("/activity/")
async def list_task_group_activities(
    user: VerifiedUser,
    session: SessionDep,
    task_group_activity_id: int | None = None,
    taskgroupv2_id: int | None = None,
    pkg_name: str | None = None,
    status: Literal["pending", "ongoing", "failed", "OK"] | None = None,
    action: Literal["collect", "deactivate", "reactivate", "delete", "reset"] | None = None,
    timestamp_started_min: AwareDatetime | None = None,
) -> list[TaskGroupActivityRead]:
    """What the user had done to task groups, the newest first."""
    wanted = {
        "id": task_group_activity_id,
        "taskgroupv2_id": taskgroupv2_id,
        "status": status,
        "action": action,
    }
    query = select(TaskGroupActivityV2).where(TaskGroupActivityV2.user_id == user.id)
    query = query.filter_by(**{name: value for name, value in wanted.items() if value is not None})
    if pkg_name is not None:
        query = query.where(col(TaskGroupActivityV2.pkg_name).icontains(pkg_name, autoescape=True))
    if timestamp_started_min is not None:
        query = query.where(TaskGroupActivityV2.timestamp_started >= timestamp_started_min)
    found = await session.exec(query.order_by(col(TaskGroupActivityV2.id).desc()))
    return [TaskGroupActivityRead.model_validate(activity) for activity in found]


@router.get("/activity/{task_group_activity_id}/")
async def read_task_group_activity(
    task_group_activity_id: int, user: VerifiedUser, session: SessionDep
) -> TaskGroupActivityRead:
    activity = await session.get(TaskGroupActivityV2, task_group_activity_id)
    if activity is None or activity.user_id != user.id:
        raise NotFoundError("Task group activity", task_group_activity_id)
    return TaskGroupActivityRead.model_validate(activity)


@router.get("/{task_group_id}/")
async def read_task_group(group: ReadableTaskGroup, session: SessionDep) -> TaskGroupRead:
    return await describe(session, group)


@router.patch("/{task_group_id}/")
async def update_task_group(
    group: OwnTaskGroup, changes: TaskGroupUpdate, user: VerifiedUser, session: SessionDep
) -> TaskGroupRead:
    """Share a task group with a user group, or with nobody."""
    if changes.user_group_id is not None:
        await require_membership(session, user, changes.user_group_id)
    group.sqlmodel_update(changes.given())
    await session.commit()
    return await describe(session, group)
