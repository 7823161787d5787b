"""Administration of profiles, through which users reach resources."""

from fastapi import APIRouter, status
from sqlmodel import col, func, select

from api.dependencies import SessionDep, Superuser
from api.errors import conflicts_as
from api.lookups import find
from fractal_models.errors import RefusedError
from fractal_models.schemas.resource import ProfileRead, ValidProfile
from fractal_models.tables import Profile, Resource, UserOAuth

router = APIRouter(prefix="/admin/v2", tags=["Resources and profiles"])


@router.get("/profile/")
async def list_profiles(_: Superuser, session: SessionDep) -> list[ProfileRead]:
    found = await session.exec(select(Profile).order_by(col(Profile.id)))
    return [ProfileRead.model_validate(profile) for profile in found]


@router.get("/resource/{resource_id}/profile/")
async def list_resource_profiles(
    resource_id: int, _: Superuser, session: SessionDep
) -> list[ProfileRead]:
    await find(session, Resource, resource_id)
    found = await session.exec(
        select(Profile).where(Profile.resource_id == resource_id).order_by(col(Profile.id))
    )
    return [ProfileRead.model_validate(profile) for profile in found]


@router.post("/resource/{resource_id}/profile/", status_code=status.HTTP_201_CREATED)
async def create_profile(
    resource_id: int, request: ValidProfile, _: Superuser, session: SessionDep
) -> ProfileRead:
    _require_type(await find(session, Resource, resource_id), request)
    profile = Profile(resource_id=resource_id, **request.model_dump())
    session.add(profile)
    async with conflicts_as(f"There is a profile {request.name!r} already."):
        await session.commit()
    return ProfileRead.model_validate(profile)


@router.get("/profile/{profile_id}/")
async def read_profile(profile_id: int, _: Superuser, session: SessionDep) -> ProfileRead:
    return ProfileRead.model_validate(await find(session, Profile, profile_id))


@router.put("/profile/{profile_id}/")
async def replace_profile(
    profile_id: int, request: ValidProfile, _: Superuser, session: SessionDep
) -> ProfileRead:
    profile = await find(session, Profile, profile_id)
    _require_type(await find(session, Resource, profile.resource_id), request)
    profile.sqlmodel_update(request.model_dump())
    async with conflicts_as(f"There is a profile {request.name!r} already."):
        await session.commit()
    return ProfileRead.model_validate(profile)


@router.delete("/profile/{profile_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_profile(profile_id: int, _: Superuser, session: SessionDep) -> None:
    profile = await find(session, Profile, profile_id)
    users = await session.exec(
        select(func.count()).select_from(UserOAuth).where(UserOAuth.profile_id == profile_id)
    )
    if count := users.one():
        raise RefusedError(
            f"Profile {profile.name!r} is that of {count} users: give them another one first."
        )
    await session.delete(profile)
    async with conflicts_as(f"Profile {profile.name!r} is in use."):
        await session.commit()


def _require_type(resource: Resource, profile: ValidProfile) -> None:
    if profile.resource_type != resource.type:
        raise RefusedError(
            f"Resource {resource.name!r} is of type {resource.type!r}, the profile is for "
            f"{profile.resource_type!r}."
        )
