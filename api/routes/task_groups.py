"""Task groups: the packages that tasks come from, and what was done to them."""

from operator import eq
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import (
    AnyTaskGroup,
    OwnTaskGroup,
    ReadableTaskGroup,
    SessionDep,
    Superuser,
    VerifiedUser,
    require_membership,
)
from api.documents import JsonDocument
from api.paging import PagingDep, page_of
from api.queries.activities import ActivityFilters
from api.queries.conditions import asked_for
from api.queries.task_groups import (
    TaskGroupFilters,
    describe,
    list_task_groups_visible_to,
    require_new_in,
    shown,
)
from fractal_models.errors import NotFoundError
from fractal_models.schemas.base import Page
from fractal_models.schemas.task import (
    TaskGroupActivityRead,
    TaskGroupRead,
    TaskGroupReadSlim,
    TaskGroupReadSuperuser,
    TaskGroupUpdate,
)
from fractal_models.tables import TaskGroupActivityV2, TaskGroupV2, UserOAuth

router = APIRouter(tags=["TaskGroup"])

_OWN = "/api/v2/task-group"
_ALL = "/admin/v2/task-group"
_Activities = Annotated[ActivityFilters, Depends()]


@router.get(f"{_OWN}/", response_model=list[tuple[str, list[TaskGroupReadSlim]]])
async def list_task_groups(
    user: VerifiedUser, session: SessionDep, only_active: bool = False, only_owner: bool = False
) -> Response:
    """The task groups by package name, each with its newest version first."""
    where = asked_for(
        (eq, TaskGroupV2.active, only_active or None),
        (eq, TaskGroupV2.user_id, user.id if only_owner else None),
    )
    return JsonDocument(await list_task_groups_visible_to(session, user, *where))


@router.get(f"{_OWN}/activity/")
async def list_task_group_activities(
    filters: _Activities, user: VerifiedUser, session: SessionDep
) -> list[TaskGroupActivityRead]:
    """What the user had done to task groups, the newest first."""
    found = await session.exec(filters.query(user.id))
    return [TaskGroupActivityRead.model_validate(activity) for activity in found]


@router.get(f"{_OWN}/activity/{{task_group_activity_id}}/")
async def read_task_group_activity(
    task_group_activity_id: int, user: VerifiedUser, session: SessionDep
) -> TaskGroupActivityRead:
    activity = await session.get(TaskGroupActivityV2, task_group_activity_id)
    if activity is None or activity.user_id != user.id:
        raise NotFoundError("Task group activity", task_group_activity_id)
    return TaskGroupActivityRead.model_validate(activity)


@router.get(f"{_OWN}/{{task_group_id}}/")
async def read_task_group(group: ReadableTaskGroup, session: SessionDep) -> TaskGroupRead:
    return await describe(session, group)


@router.patch(f"{_OWN}/{{task_group_id}}/")
async def update_task_group(
    group: OwnTaskGroup, changes: TaskGroupUpdate, user: VerifiedUser, session: SessionDep
) -> TaskGroupRead:
    """Share a task group with a user group, or with nobody."""
    return await _share(session, group, changes, user)


@router.get(f"{_ALL}/")
async def list_all_task_groups(
    filters: Annotated[TaskGroupFilters, Depends()],
    paging: PagingDep,
    _: Superuser,
    session: SessionDep,
) -> Page[TaskGroupReadSuperuser]:
    """The task groups of all users, in the order in which they were made."""
    return await page_of(session, filters.query(), paging, shown)


@router.get(f"{_ALL}/activity/")
async def list_all_task_group_activities(
    filters: _Activities,
    paging: PagingDep,
    _: Superuser,
    session: SessionDep,
    user_id: int | None = None,
) -> Page[TaskGroupActivityRead]:
    """What was done to task groups, the newest first."""
    query = filters.query(user_id)
    return await page_of(session, query, paging, TaskGroupActivityRead.model_validate)


@router.get(f"{_ALL}/{{task_group_id}}/")
async def read_any_task_group(group: AnyTaskGroup, session: SessionDep) -> TaskGroupReadSuperuser:
    return await describe(session, group)


@router.patch(f"{_ALL}/{{task_group_id}}/")
async def update_any_task_group(
    group: AnyTaskGroup, changes: TaskGroupUpdate, user: Superuser, session: SessionDep
) -> TaskGroupReadSuperuser:
    """Share a task group of whoever with a user group that the administrator is in."""
    return await _share(session, group, changes, user)


async def _share(
    session: AsyncSession, group: TaskGroupV2, changes: TaskGroupUpdate, user: UserOAuth
) -> TaskGroupReadSuperuser:
    if changes.user_group_id is not None:
        await require_membership(session, user, changes.user_group_id)
        await require_new_in(session, group, changes.user_group_id)
    group.sqlmodel_update(changes.given())
    await session.commit()
    return await describe(session, group)
