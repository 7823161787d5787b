"""The user who is logged in."""

from fastapi import APIRouter
from sqlmodel import col, select

from api.queries.users import with_groups
from api.services import CurrentUser, SessionDep, SettingsDep, UserManagerDep
from fractal_models.project_dirs import zarr_dirs_of
from fractal_models.rights import require_no_guest, require_verified
from fractal_models.schemas.user import UserProfileInfo, UserRead, UserUpdateStrict
from fractal_models.tables import Profile, Resource

router = APIRouter(prefix="/auth/current-user", tags=["Authentication"])


@router.get("/")
async def read_current_user(
    user: CurrentUser, session: SessionDep, settings: SettingsDep, group_ids_names: bool = False
) -> UserRead:
    if group_ids_names:
        return await with_groups(session, user, settings.default_group)
    return UserRead.model_validate(user)


@router.patch("/")
async def update_current_user(
    user: CurrentUser,
    changes: UserUpdateStrict,
    users: UserManagerDep,
    session: SessionDep,
    settings: SettingsDep,
) -> UserRead:
    require_no_guest(user)
    edited = await users.edit(user, changes.given())
    return await with_groups(session, edited, settings.default_group)


@router.get("/profile-info/")
async def read_profile_info(user: CurrentUser, session: SessionDep) -> UserProfileInfo:
    """Through which profile and resource the user runs jobs."""
    found = await session.exec(
        select(Profile, Resource.name)
        .join(Resource, col(Resource.id) == col(Profile.resource_id))
        .where(Profile.id == user.profile_id)
    )
    if (row := found.first()) is None:
        return UserProfileInfo(has_profile=False)
    profile, resource_name = row
    return UserProfileInfo(
        has_profile=True,
        resource_name=resource_name,
        profile_name=profile.name,
        username=profile.username,
    )


@router.get("/allowed-viewer-paths/")
async def list_allowed_viewer_paths(
    user: CurrentUser, session: SessionDep, include_shared_projects: bool = True
) -> list[str]:
    """The folders whose images an image viewer may show to the user.

    That is their own, and unless `include_shared_projects=false` those of all datasets of projects
    in which they take part.
    """
    require_verified(user)
    paths = dict.fromkeys(user.project_dirs)
    if include_shared_projects:
        paths |= dict.fromkeys(await zarr_dirs_of(session, user.id))
    return list(paths)
