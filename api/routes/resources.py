"""Administration of resources, each of which is also a work pool of Prefect, and of the profiles
through which users reach them."""

import logging

from fastapi import APIRouter, status
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.errors import conflicts_as
from api.rights import AnyProfile, AnyResource
from api.services import SessionDep, SparedEngineDep, Superuser
from flows.engine.client import Engine, EngineUnavailableError
from flows.engine.pool_names import new_pool_name
from flows.engine.publication import publish_resource, withdraw_resource
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.rights import find
from fractal_models.schemas.resource import ProfileRead, ResourceRead, ValidProfile, ValidResource
from fractal_models.tables import Profile, ProjectV2, Resource, TaskGroupV2, UserOAuth

router = APIRouter(prefix="/admin/v2", tags=["Resources and profiles"])

_LOGGER = logging.getLogger("fractal.api")


@router.get("/resource/")
async def list_resources(_: Superuser, session: SessionDep) -> list[ResourceRead]:
    found = await session.exec(select(Resource).order_by(col(Resource.id)))
    return [ResourceRead.model_validate(resource) for resource in found]


@router.post("/resource/", status_code=status.HTTP_201_CREATED)
async def create_resource(
    request: ValidResource, _: Superuser, session: SessionDep, engine: SparedEngineDep
) -> ResourceRead:
    pool = await new_pool_name(session, request.name)
    resource = Resource(**request.model_dump(mode="json"), work_pool=pool)
    session.add(resource)
    await _commit_and_publish(session, engine, resource)
    return ResourceRead.model_validate(resource)


@router.get("/resource/{resource_id}/")
async def read_resource(resource: AnyResource) -> ResourceRead:
    return ResourceRead.model_validate(resource)


@router.put("/resource/{resource_id}/")
async def replace_resource(
    resource: AnyResource, request: ValidResource, session: SessionDep, engine: SparedEngineDep
) -> ResourceRead:
    """Change a resource. It may be renamed: its work pool keeps the first name, and what runs."""
    if request.type != resource.type:
        raise RefusedError(
            f"The type of resource {resource.name!r} cannot be changed: it is that of its "
            "work pool. Make a new resource."
        )
    resource.sqlmodel_update(request.model_dump(mode="json"))
    await _commit_and_publish(session, engine, resource)
    return ResourceRead.model_validate(resource)


@router.delete("/resource/{resource_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_resource(
    resource: AnyResource, session: SessionDep, engine: SparedEngineDep
) -> None:
    counts = [
        select(func.count()).where(column == resource.id).scalar_subquery()
        for column in (
            col(ProjectV2.resource_id),
            col(Profile.resource_id),
            col(TaskGroupV2.resource_id),
        )
    ]
    if any(users := (await session.execute(select(*counts))).one()):
        raise RefusedError(
            f"Resource {resource.name!r} is in use by {users[0]} projects, {users[1]} profiles and "
            f"{users[2]} task groups: delete these first."
        )
    await session.delete(resource)
    async with conflicts_as(f"Resource {resource.name!r} is in use."):
        await session.commit()
    try:
        await withdraw_resource(engine, resource.work_pool)
    except EngineUnavailableError as error:
        _LOGGER.warning("The work pool of deleted resource %r stays: %s", resource.name, error)


@router.get("/profile/")
async def list_profiles(_: Superuser, session: SessionDep) -> list[ProfileRead]:
    found = await session.exec(select(Profile).order_by(col(Profile.id)))
    return [ProfileRead.model_validate(profile) for profile in found]


@router.get("/resource/{resource_id}/profile/")
async def list_resource_profiles(resource: AnyResource, session: SessionDep) -> list[ProfileRead]:
    found = await session.exec(
        select(Profile).where(Profile.resource_id == resource.id).order_by(col(Profile.id))
    )
    return [ProfileRead.model_validate(profile) for profile in found]


@router.post("/resource/{resource_id}/profile/", status_code=status.HTTP_201_CREATED)
async def create_profile(
    resource: AnyResource, request: ValidProfile, session: SessionDep
) -> ProfileRead:
    _require_type(resource, request)
    profile = Profile(resource_id=saved_id(resource), **request.model_dump())
    session.add(profile)
    async with conflicts_as(f"There is a profile {request.name!r} already."):
        await session.commit()
    return ProfileRead.model_validate(profile)


@router.get("/profile/{profile_id}/")
async def read_profile(profile: AnyProfile) -> ProfileRead:
    return ProfileRead.model_validate(profile)


@router.put("/profile/{profile_id}/")
async def replace_profile(
    profile: AnyProfile, request: ValidProfile, session: SessionDep
) -> ProfileRead:
    _require_type(await find(session, Resource, profile.resource_id), request)
    profile.sqlmodel_update(request.model_dump())
    async with conflicts_as(f"There is a profile {request.name!r} already."):
        await session.commit()
    return ProfileRead.model_validate(profile)


@router.delete("/profile/{profile_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_profile(profile: AnyProfile, session: SessionDep) -> None:
    users = await session.exec(
        select(func.count()).select_from(UserOAuth).where(UserOAuth.profile_id == profile.id)
    )
    if count := users.one():
        raise RefusedError(
            f"Profile {profile.name!r} is that of {count} users: give them another one first."
        )
    await session.delete(profile)
    async with conflicts_as(f"Profile {profile.name!r} is in use."):
        await session.commit()


async def _commit_and_publish(session: AsyncSession, engine: Engine, resource: Resource) -> None:
    """If Prefect does not answer, the worker of the resource publishes it."""
    async with conflicts_as(f"There is a resource {resource.name!r} already."):
        await session.commit()
    try:
        await publish_resource(engine, resource)
    except EngineUnavailableError as error:
        _LOGGER.warning("Resource %r waits for its worker: %s", resource.name, error)


def _require_type(resource: Resource, profile: ValidProfile) -> None:
    if profile.resource_type != resource.type:
        raise RefusedError(
            f"Resource {resource.name!r} is of type {resource.type!r}, the profile is for "
            f"{profile.resource_type!r}."
        )
