"""User groups, with which task groups are shared."""

from fastapi import APIRouter, status
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import SessionDep, SettingsDep, Superuser
from api.errors import conflicts_as
from api.lookups import find
from api.queries.users import add_to_group, members_by_group, members_of, remove_from_group
from fractal_models.errors import RefusedError
from fractal_models.schemas.user import UserGroupCreate, UserGroupRead
from fractal_models.tables import UserGroup, UserOAuth

router = APIRouter(prefix="/auth/group", tags=["Authentication"])


@router.get("/")
async def list_groups(
    _: Superuser, session: SessionDep, user_ids: bool = False
) -> list[UserGroupRead]:
    found = await session.exec(select(UserGroup).order_by(col(UserGroup.id)))
    groups = [UserGroupRead.model_validate(group) for group in found]
    if user_ids:
        members = await members_by_group(session)
        for group in groups:
            group.user_ids = members.get(group.id, [])
    return groups


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_group(
    request: UserGroupCreate, _: Superuser, session: SessionDep
) -> UserGroupRead:
    group = UserGroup(name=request.name)
    session.add(group)
    async with conflicts_as(f"There is a group {request.name!r} already."):
        await session.commit()
    return await _with_members(session, group)


@router.get("/{group_id}/")
async def read_group(group_id: int, _: Superuser, session: SessionDep) -> UserGroupRead:
    return await _with_members(session, await find(session, UserGroup, group_id))


@router.delete("/{group_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_group(
    group_id: int, _: Superuser, session: SessionDep, settings: SettingsDep
) -> None:
    """Delete a group; the task groups that were shared with it become private."""
    group = await find(session, UserGroup, group_id)
    if group.name == settings.default_group:
        raise RefusedError(f"{group.name!r} is the default group, which must stay.")
    await session.delete(group)
    await session.commit()


@router.post("/{group_id}/add-user/{user_id}/")
async def add_user_to_group(
    group_id: int, user_id: int, _: Superuser, session: SessionDep
) -> UserGroupRead:
    group = await find(session, UserGroup, group_id)
    await find(session, UserOAuth, user_id)
    if not await add_to_group(session, user_id, group_id):
        raise RefusedError(f"User {user_id} is in group {group.name!r} already.")
    await session.commit()
    return await _with_members(session, group)


@router.post("/{group_id}/remove-user/{user_id}/")
async def remove_user_from_group(
    group_id: int, user_id: int, _: Superuser, session: SessionDep, settings: SettingsDep
) -> UserGroupRead:
    group = await find(session, UserGroup, group_id)
    await find(session, UserOAuth, user_id)
    if group.name == settings.default_group:
        raise RefusedError(f"Every user is in the default group {group.name!r}.")
    if not await remove_from_group(session, user_id, group_id):
        raise RefusedError(f"User {user_id} is not in group {group.name!r}.")
    await session.commit()
    return await _with_members(session, group)


async def _with_members(session: AsyncSession, group: UserGroup) -> UserGroupRead:
    answer = UserGroupRead.model_validate(group)
    answer.user_ids = await members_of(session, answer.id)
    return answer
