"""Task groups: the packages that tasks come from, and what was done to them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import AwareDatetime
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from api import lists
from api.lists import JsonDocument, PagingDep, list_of, page_of
from api.queries import task_groups
from api.readers import VerifiedReader
from api.rights import AnyTaskGroup, OwnTaskGroup, ReadableTaskGroup
from api.services import SessionDep, Superuser, VerifiedUser
from flows.activities.new_groups import require_new_in
from fractal_models.rights import find, require_membership
from fractal_models.schemas.base import Page
from fractal_models.schemas.task import (
    ActivityAction,
    ActivityStatus,
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


@dataclass(frozen=True, slots=True)
class ActivityFilters:
    """Which activities are asked for."""

    task_group_activity_id: Annotated[int | None, lists.equals(TaskGroupActivityV2.id)] = None
    taskgroupv2_id: Annotated[int | None, lists.equals(TaskGroupActivityV2.taskgroupv2_id)] = None
    pkg_name: Annotated[str | None, lists.contains(TaskGroupActivityV2.pkg_name)] = None
    status: Annotated[ActivityStatus | None, lists.equals(TaskGroupActivityV2.status)] = None
    action: Annotated[ActivityAction | None, lists.equals(TaskGroupActivityV2.action)] = None
    timestamp_started_min: Annotated[
        AwareDatetime | None, lists.at_least(TaskGroupActivityV2.timestamp_started)
    ] = None

    def query(self) -> SelectOfScalar[TaskGroupActivityV2]:
        """The newest first."""
        newest_first = col(TaskGroupActivityV2.id).desc()
        return select(TaskGroupActivityV2).where(*lists.asked_for(self)).order_by(newest_first)


_Activities = Annotated[ActivityFilters, lists.filters(ActivityFilters)]


@router.get(f"{_OWN}/", response_model=list[tuple[str, list[TaskGroupReadSlim]]])
async def list_task_groups(
    reader: VerifiedReader, only_active: bool = False, only_owner: bool = False
) -> Response:
    """The task groups by package name, each with its newest version first."""
    visible = await reader.read(task_groups.VISIBLE, only_active=only_active, only_owner=only_owner)
    return JsonDocument(task_groups.by_package(visible))


@router.get(f"{_OWN}/activity/", response_model=list[TaskGroupActivityRead])
async def list_task_group_activities(
    filters: _Activities, user: VerifiedUser, session: SessionDep
) -> Response:
    """What the user had done to task groups, the newest first."""
    query = filters.query().where(TaskGroupActivityV2.user_id == user.id)
    return await list_of(session, TaskGroupActivityRead, query)


@router.get(f"{_OWN}/activity/{{task_group_activity_id}}/")
async def read_task_group_activity(
    task_group_activity_id: int, user: VerifiedUser, session: SessionDep
) -> TaskGroupActivityRead:
    is_theirs = TaskGroupActivityV2.user_id == user.id
    activity = await find(session, TaskGroupActivityV2, task_group_activity_id, is_theirs)
    return TaskGroupActivityRead.model_validate(activity)


@router.get(f"{_OWN}/{{task_group_id}}/")
async def read_task_group(group: ReadableTaskGroup, session: SessionDep) -> TaskGroupRead:
    return await task_groups.describe(session, group)


@router.patch(f"{_OWN}/{{task_group_id}}/")
async def update_task_group(
    group: OwnTaskGroup, changes: TaskGroupUpdate, user: VerifiedUser, session: SessionDep
) -> TaskGroupRead:
    """Share a task group with a user group, or with nobody."""
    return await _share(session, group, changes, user)


@router.get(f"{_ALL}/", response_model=Page[TaskGroupReadSuperuser])
async def list_all_task_groups(
    filters: Annotated[task_groups.TaskGroupFilters, lists.filters(task_groups.TaskGroupFilters)],
    paging: PagingDep,
    _: Superuser,
    session: SessionDep,
) -> Response:
    """The task groups of all users, in the order in which they were made."""
    return await page_of(session, TaskGroupReadSuperuser, filters.query(), paging)


@router.get(f"{_ALL}/activity/", response_model=Page[TaskGroupActivityRead])
async def list_all_task_group_activities(
    filters: _Activities,
    paging: PagingDep,
    _: Superuser,
    session: SessionDep,
    user_id: int | None = None,
) -> Response:
    """What was done to task groups, the newest first."""
    query = filters.query()
    if user_id is not None:
        query = query.where(TaskGroupActivityV2.user_id == user_id)
    return await page_of(session, TaskGroupActivityRead, query, paging)


@router.get(f"{_ALL}/{{task_group_id}}/")
async def read_any_task_group(group: AnyTaskGroup, session: SessionDep) -> TaskGroupReadSuperuser:
    return await task_groups.describe(session, group)


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
    return await task_groups.describe(session, group)
