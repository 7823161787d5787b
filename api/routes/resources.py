"""Administration of resources, each of which is also a work pool of Prefect."""

import logging

from fastapi import APIRouter, status
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import SessionDep, SparedEngineDep, Superuser
from api.errors import conflicts_as
from api.lookups import find
from api.queries.resources import count_users_of_resource
from flows.engine.client import Engine, EngineUnavailableError
from flows.engine.pool_names import new_pool_name
from flows.engine.publication import publish_resource, withdraw_resource
from fractal_models.errors import RefusedError
from fractal_models.schemas.resource import ResourceRead, ValidResource
from fractal_models.tables import Resource

router = APIRouter(prefix="/admin/v2/resource", tags=["Resources and profiles"])

_LOGGER = logging.getLogger("fractal.api")


@router.get("/")
async def list_resources(_: Superuser, session: SessionDep) -> list[ResourceRead]:
    found = await session.exec(select(Resource).order_by(col(Resource.id)))
    return [ResourceRead.model_validate(resource) for resource in found]


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_resource(
    request: ValidResource, _: Superuser, session: SessionDep, engine: SparedEngineDep
) -> ResourceRead:
    pool = await new_pool_name(session, request.name)
    resource = Resource(**request.model_dump(mode="json"), work_pool=pool)
    session.add(resource)
    await _commit_and_publish(session, engine, resource)
    return ResourceRead.model_validate(resource)


@router.get("/{resource_id}/")
async def read_resource(resource_id: int, _: Superuser, session: SessionDep) -> ResourceRead:
    return ResourceRead.model_validate(await find(session, Resource, resource_id))


@router.put("/{resource_id}/")
async def replace_resource(
    resource_id: int,
    request: ValidResource,
    _: Superuser,
    session: SessionDep,
    engine: SparedEngineDep,
) -> ResourceRead:
    """Change a resource. It may be renamed: its work pool keeps the first name, and what runs."""
    resource = await find(session, Resource, resource_id)
    if request.type != resource.type:
        raise RefusedError(
            f"The type of resource {resource.name!r} cannot be changed: it is that of its "
            "work pool. Make a new resource."
        )
    resource.sqlmodel_update(request.model_dump(mode="json"))
    await _commit_and_publish(session, engine, resource)
    return ResourceRead.model_validate(resource)


@router.delete("/{resource_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_resource(
    resource_id: int, _: Superuser, session: SessionDep, engine: SparedEngineDep
) -> None:
    resource = await find(session, Resource, resource_id)
    if any(users := await count_users_of_resource(session, resource_id)):
        raise RefusedError(
            f"Resource {resource.name!r} is in use by {users.projects} projects, {users.profiles} "
            f"profiles and {users.task_groups} task groups: delete these first."
        )
    await session.delete(resource)
    async with conflicts_as(f"Resource {resource.name!r} is in use."):
        await session.commit()
    try:
        await withdraw_resource(engine, resource.work_pool)
    except EngineUnavailableError as error:
        _LOGGER.warning("The work pool of deleted resource %r stays: %s", resource.name, error)


async def _commit_and_publish(session: AsyncSession, engine: Engine, resource: Resource) -> None:
    """If Prefect does not answer, the worker of the resource publishes it."""
    async with conflicts_as(f"There is a resource {resource.name!r} already."):
        await session.commit()
    try:
        await publish_resource(engine, resource)
    except EngineUnavailableError as error:
        _LOGGER.warning("Resource %r waits for its worker: %s", resource.name, error)
