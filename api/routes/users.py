"""User administration."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, status
from fastapi_users import InvalidPasswordException
from fastapi_users.exceptions import UserAlreadyExists
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import SessionDep, SettingsDep, Superuser, UserManagerDep
from api.errors import bad_request
from api.lookups import find
from api.queries.projects import zarr_dirs_of
from api.queries.users import default_group, set_groups, with_groups
from fractal_models.errors import RefusedError
from fractal_models.schemas.user import UserCreate, UserRead, UserUpdate, UserUpdateGroups
from fractal_models.tables import Profile, UserOAuth
from fractal_models.urls import lies_in

router = APIRouter(prefix="/auth", tags=["Authentication"])


@router.post("/register/", status_code=status.HTTP_201_CREATED)
async def register_user(
    request: UserCreate, _: Superuser, users: UserManagerDep, session: SessionDep
) -> UserRead:
    """Make a user, who joins the default group."""
    await _require_profile(session, request.profile_id)
    with _refusals_of(request.email):
        return UserRead.model_validate(await users.register(request))


@router.get("/users/")
async def list_users(
    _: Superuser, session: SessionDep, profile_id: int | None = None
) -> list[UserRead]:
    """All users, or those with one profile."""
    query = select(UserOAuth).order_by(col(UserOAuth.id))
    if profile_id is not None:
        query = query.where(UserOAuth.profile_id == profile_id)
    return [UserRead.model_validate(user) for user in (await session.exec(query)).unique()]


@router.get("/users/{user_id}/")
async def read_user(
    user_id: int,
    _: Superuser,
    session: SessionDep,
    settings: SettingsDep,
    group_ids_names: bool = True,
) -> UserRead:
    user = await find(session, UserOAuth, user_id)
    if group_ids_names:
        return await with_groups(session, user, settings.default_group)
    return UserRead.model_validate(user)


@router.patch("/users/{user_id}/")
async def update_user(
    user_id: int,
    changes: UserUpdate,
    _: Superuser,
    users: UserManagerDep,
    session: SessionDep,
    settings: SettingsDep,
) -> UserRead:
    user = await find(session, UserOAuth, user_id)
    given = changes.given()
    await _require_profile(session, given.get("profile_id"))
    if given.get("is_superuser", user.is_superuser) and given.get("is_guest", user.is_guest):
        raise RefusedError("A superuser cannot be a guest.")
    if "project_dirs" in given:
        await _require_datasets_inside(session, user, given["project_dirs"])
    with _refusals_of(changes.email):
        edited = await users.edit(user, given)
    return await with_groups(session, edited, settings.default_group)


@router.post("/users/{user_id}/set-groups/")
async def set_user_groups(
    user_id: int,
    request: UserUpdateGroups,
    _: Superuser,
    session: SessionDep,
    settings: SettingsDep,
) -> UserRead:
    """Make the user a member of just these groups; the default group must be among them."""
    user = await find(session, UserOAuth, user_id)
    default = await default_group(session, settings.default_group)
    await set_groups(session, user_id, request.group_ids)
    if default.id not in request.group_ids:
        raise RefusedError(
            f"Every user is in group {default.name!r}: add its id, {default.id}, to the list."
        )
    await session.commit()
    return await with_groups(session, user, settings.default_group)


@router.post("/users/{user_id}/log-out/", status_code=status.HTTP_204_NO_CONTENT)
async def log_out_user(
    user_id: int, _: Superuser, users: UserManagerDep, session: SessionDep
) -> None:
    """End all login tokens of the user, wherever they are logged in."""
    await users.log_out(await find(session, UserOAuth, user_id))


async def _require_profile(session: AsyncSession, profile_id: int | None) -> None:
    if profile_id is not None:
        await find(session, Profile, profile_id)


async def _require_datasets_inside(
    session: AsyncSession, user: UserOAuth, project_dirs: list[str]
) -> None:
    before = [
        path for path in await zarr_dirs_of(session, user.id) if lies_in(path, user.project_dirs)
    ]
    if lost := [path for path in before if not lies_in(path, project_dirs)]:
        raise RefusedError(
            f"{len(lost)} folders of datasets of {user.email} would be in none of the project_dirs "
            f"any more, e.g. {lost[0]}."
        )


@contextmanager
def _refusals_of(email: str) -> Iterator[None]:
    """Answer 400 where the email is taken or the password is no good, as fastapi-users does."""
    try:
        yield
    except UserAlreadyExists as error:
        raise bad_request(f"There is a user {email} already.") from error
    except InvalidPasswordException as error:
        raise bad_request(str(error.reason)) from error
