"""Administration of users and their groups."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Response, status
from fastapi_users import InvalidPasswordException
from fastapi_users.exceptions import UserAlreadyExists
from pydantic import AwareDatetime
from sqlalchemy import Select
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api import lists
from api.auth import login_tokens
from api.errors import bad_request, conflicts_as
from api.lists import at_least, at_most
from api.queries import users as queries
from api.readers import SuperuserReader
from api.rights import AnyGroup, AnyUser
from api.services import SessionDep, SettingsDep, Superuser, UserManagerDep
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.groups import (
    add_to_group,
    default_group,
    members_by_group,
    remove_from_group,
    set_groups,
)
from fractal_models.project_dirs import require_datasets_inside
from fractal_models.rights import find
from fractal_models.schemas import user as schemas
from fractal_models.tables import JobV2, LinkUserGroup, Profile, UserGroup, UserOAuth

router = APIRouter(prefix="/auth", tags=["Authentication"])
router_of_all = APIRouter(prefix="/admin/v2", tags=["Administration"])

_IMPERSONATION_SECONDS = 2 * 60 * 60


@router.post("/register/", status_code=status.HTTP_201_CREATED)
async def register_user(
    request: schemas.UserCreate, _: Superuser, users: UserManagerDep, session: SessionDep
) -> schemas.UserRead:
    """Make a user, who joins the default group."""
    await _require_profile(session, request.profile_id)
    with _refusals_of(request.email):
        return schemas.UserRead.model_validate(await users.register(request))


@router.get("/users/", response_model=list[schemas.UserRead])
async def list_users(reader: SuperuserReader, profile_id: int | None = None) -> Response:
    """All users, or those with one profile."""
    return await reader.answer(queries.USERS, profile_id=profile_id)


@router.get("/users/{user_id}/")
async def read_user(
    user: AnyUser, session: SessionDep, settings: SettingsDep, group_ids_names: bool = True
) -> schemas.UserRead:
    if group_ids_names:
        return await queries.with_groups(session, user, settings.default_group)
    return schemas.UserRead.model_validate(user)


@router.patch("/users/{user_id}/")
async def update_user(
    user: AnyUser,
    changes: schemas.UserUpdate,
    users: UserManagerDep,
    session: SessionDep,
    settings: SettingsDep,
) -> schemas.UserRead:
    given = changes.given()
    await _require_profile(session, given.get("profile_id"))
    if given.get("is_superuser", user.is_superuser) and given.get("is_guest", user.is_guest):
        raise RefusedError("A superuser cannot be a guest.")
    if "project_dirs" in given:
        await require_datasets_inside(session, user, given["project_dirs"])
    with _refusals_of(changes.email):
        edited = await users.edit(user, given)
    return await queries.with_groups(session, edited, settings.default_group)


@router.post("/users/{user_id}/set-groups/")
async def set_user_groups(
    user: AnyUser, request: schemas.UserUpdateGroups, session: SessionDep, settings: SettingsDep
) -> schemas.UserRead:
    """Make the user a member of just these groups; the default group must be among them."""
    default = await default_group(session, settings.default_group)
    await set_groups(session, saved_id(user), request.group_ids)
    if default.id not in request.group_ids:
        raise RefusedError(
            f"Every user is in group {default.name!r}: add its id, {default.id}, to the list."
        )
    await session.commit()
    return await queries.with_groups(session, user, settings.default_group)


@router.post("/users/{user_id}/log-out/", status_code=status.HTTP_204_NO_CONTENT)
async def log_out_user(user: AnyUser, users: UserManagerDep) -> None:
    """End all login tokens of the user, wherever they are logged in."""
    await users.log_out(user)


# --- groups, with which task groups are shared --------------------------------------------------


@router.get("/group/")
async def list_groups(
    _: Superuser, session: SessionDep, user_ids: bool = False
) -> list[schemas.UserGroupRead]:
    found = await session.exec(select(UserGroup).order_by(col(UserGroup.id)))
    groups = [schemas.UserGroupRead.model_validate(group) for group in found]
    if user_ids:
        members = await members_by_group(session)
        for group in groups:
            group.user_ids = members.get(group.id, [])
    return groups


@router.post("/group/", status_code=status.HTTP_201_CREATED)
async def create_group(
    request: schemas.UserGroupCreate, _: Superuser, session: SessionDep
) -> schemas.UserGroupRead:
    group = UserGroup(name=request.name)
    session.add(group)
    async with conflicts_as(f"There is a group {request.name!r} already."):
        await session.commit()
    return await _with_members(session, group)


@router.get("/group/{group_id}/")
async def read_group(group: AnyGroup, session: SessionDep) -> schemas.UserGroupRead:
    return await _with_members(session, group)


@router.delete("/group/{group_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_group(group: AnyGroup, session: SessionDep, settings: SettingsDep) -> None:
    """Delete a group; the task groups that were shared with it become private."""
    if group.name == settings.default_group:
        raise RefusedError(f"{group.name!r} is the default group, which must stay.")
    await session.delete(group)
    await session.commit()


@router.post("/group/{group_id}/add-user/{user_id}/")
async def add_user_to_group(
    group: AnyGroup, user: AnyUser, session: SessionDep
) -> schemas.UserGroupRead:
    if not await add_to_group(session, saved_id(user), saved_id(group)):
        raise RefusedError(f"User {user.id} is in group {group.name!r} already.")
    await session.commit()
    return await _with_members(session, group)


@router.post("/group/{group_id}/remove-user/{user_id}/")
async def remove_user_from_group(
    group: AnyGroup, user: AnyUser, session: SessionDep, settings: SettingsDep
) -> schemas.UserGroupRead:
    if group.name == settings.default_group:
        raise RefusedError(f"Every user is in the default group {group.name!r}.")
    if not await remove_from_group(session, saved_id(user), saved_id(group)):
        raise RefusedError(f"User {user.id} is not in group {group.name!r}.")
    await session.commit()
    return await _with_members(session, group)


# --- other administration ----------------------------------------------------------------------


@router_of_all.get("/impersonate/{user_id}/")
async def impersonate_user(user: AnyUser, settings: SettingsDep) -> schemas.BearerResponse:
    """A token with which one is another user, for two hours."""
    if not user.is_active:
        raise RefusedError(f"User {user.email} is not active, and cannot log in.")
    token = await login_tokens(settings, _IMPERSONATION_SECONDS).write_token(user)
    return schemas.BearerResponse(access_token=token, token_type="bearer")


@dataclass(frozen=True, slots=True)
class StartedJobFilters:
    """Which jobs are counted."""

    start_timestamp_min: Annotated[AwareDatetime | None, at_least(JobV2.start_timestamp)] = None
    start_timestamp_max: Annotated[AwareDatetime | None, at_most(JobV2.start_timestamp)] = None


@router_of_all.get("/users-csv/", response_class=Response)
async def table_users(
    filters: Annotated[StartedJobFilters, lists.filters(StartedJobFilters)],
    _: Superuser,
    session: SessionDep,
    exclude_zero_jobs: bool = False,
) -> Response:
    """A CSV table of the users with a profile, and how many jobs they started in a time."""
    users = await session.execute(_table_of_users(filters, only_with_jobs=exclude_zero_jobs))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(users.keys())
    writer.writerows(users)
    return Response(
        table.getvalue(),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="users.csv"'},
    )


def _table_of_users(filters: StartedJobFilters, *, only_with_jobs: bool) -> Select[Any]:
    """The users with a profile, by email, and how many jobs they started in a time.

    Where a cell holds several values, | stands between them.
    """
    jobs = (
        select(JobV2.user_email, func.count().label("count"))
        .where(*lists.asked_for(filters))
        .group_by(col(JobV2.user_email))
        .subquery()
    )
    groups = (
        select(LinkUserGroup.user_id, func.string_agg(UserGroup.name, "|").label("names"))
        .join(UserGroup, col(UserGroup.id) == col(LinkUserGroup.group_id))
        .group_by(col(LinkUserGroup.user_id))
        .subquery()
    )
    accounts = select(func.jsonb_array_elements_text(UserOAuth.slurm_accounts)).scalar_subquery()
    columns: list[Any] = [
        UserOAuth.id,
        UserOAuth.email,
        col(Profile.username).label("slurm_username"),
        func.array_to_string(func.array(accounts), "|").label("slurm_accounts"),
        func.array_to_string(UserOAuth.project_dirs, "|").label("project_dirs"),
        groups.c.names.label("user_groups"),
        func.coalesce(jobs.c.count, 0).label("num_jobs"),
    ]
    table: Select[Any] = (
        select(*columns)
        .join(Profile, col(Profile.id) == col(UserOAuth.profile_id))
        .outerjoin(groups, groups.c.user_id == col(UserOAuth.id))
        .join(jobs, jobs.c.user_email == col(UserOAuth.email), isouter=not only_with_jobs)
        .order_by(col(UserOAuth.email))
    )
    return table


async def _require_profile(session: AsyncSession, profile_id: int | None) -> None:
    if profile_id is not None:
        await find(session, Profile, profile_id)


@contextmanager
def _refusals_of(email: str) -> Iterator[None]:
    """Answer 400 where the email is taken or the password is no good, as fastapi-users does."""
    try:
        yield
    except UserAlreadyExists as error:
        raise bad_request(f"There is a user {email} already.") from error
    except InvalidPasswordException as error:
        raise bad_request(str(error.reason)) from error


async def _with_members(session: AsyncSession, group: UserGroup) -> schemas.UserGroupRead:
    answer = schemas.UserGroupRead.model_validate(group)
    members = await members_by_group(session, LinkUserGroup.group_id == group.id)
    answer.user_ids = members.get(answer.id, [])
    return answer
