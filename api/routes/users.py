"""User administration."""

from fastapi import APIRouter, HTTPException, status
from fastapi_users import InvalidPasswordException
from fastapi_users.exceptions import UserAlreadyExists
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import SessionDep, SettingsDep, Superuser, UserManagerDep
from api.errors import conflicts_as, unprocessable
from api.lookups import find
from api.queries.users import default_group, groups_of, set_groups
from fractal_models.schemas.user import UserCreate, UserRead, UserUpdate, UserUpdateGroups
from fractal_models.tables import Profile, UserOAuth

router = APIRouter(prefix="/auth", tags=["Authentication"])


@router.post(
    "/register/",
    status_code=status.HTTP_201_CREATED,
    responses={400: {"description": "The email is taken, or the password is no good"}},
)
async def register_user(
    request: UserCreate, _: Superuser, users: UserManagerDep, session: SessionDep
) -> UserRead:
    """Make a user, who joins the default group."""
    await _require_profile(session, request.profile_id)
    try:
        return UserRead.model_validate(await users.register(request))
    except (UserAlreadyExists, InvalidPasswordException) as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, _reason(error, request.email)) from error


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
    user_id: int, _: Superuser, session: SessionDep, group_ids_names: bool = True
) -> UserRead:
    answer = UserRead.model_validate(await find(session, UserOAuth, user_id))
    if group_ids_names:
        answer.group_ids_names = await groups_of(session, user_id)
    return answer


@router.patch("/users/{user_id}/")
async def update_user(
    user_id: int, changes: UserUpdate, _: Superuser, users: UserManagerDep, session: SessionDep
) -> UserRead:
    user = await find(session, UserOAuth, user_id)
    given = changes.given()
    await _require_profile(session, given.get("profile_id"))
    if given.get("is_superuser", user.is_superuser) and given.get("is_guest", user.is_guest):
        raise unprocessable("A superuser cannot be a guest.")
    try:
        return UserRead.model_validate(await users.edit(user, given))
    except (UserAlreadyExists, InvalidPasswordException) as error:
        raise unprocessable(_reason(error, changes.email)) from error


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
    if default.id not in request.group_ids:
        raise unprocessable(
            f"Every user is in group {default.name!r}: add its id, {default.id}, to the list."
        )
    async with conflicts_as(f"Not all groups of {request.group_ids} exist."):
        await set_groups(session, user_id, request.group_ids)
    await session.commit()
    answer = UserRead.model_validate(user)
    answer.group_ids_names = await groups_of(session, user_id)
    return answer


async def _require_profile(session: AsyncSession, profile_id: int | None) -> None:
    if profile_id is not None:
        await find(session, Profile, profile_id)


def _reason(error: UserAlreadyExists | InvalidPasswordException, email: str) -> str:
    if isinstance(error, UserAlreadyExists):
        return f"There is a user {email} already."
    return str(error.reason)
