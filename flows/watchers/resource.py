"""Keeps the work pool of a resource up to date with the resource."""

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.engine.publication import publish_resource, withdraw_resource
from flows.engine.work_pools import work_pool_of
from flows.watchers.watcher import Watcher
from fractal_models.errors import FractalError
from fractal_models.tables import Resource


class ResourceDeletedError(FractalError):
    """The resource was deleted, so its worker has nothing to do."""


class ResourceKeeper(Watcher):
    """Repeats what the REST API could not tell Prefect, and restores what was lost there."""

    seconds = 5.0

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], engine: Engine, resource: Resource
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._id, self._pool = resource.id, resource.work_pool
        self._published: object = None

    async def look(self) -> None:
        """Publish the resource if it has changed, or if its work pool does not exist.

        Raises:
            ResourceDeletedError: the resource does not exist any more; its work pool was deleted,
                unless another resource has it.
            EngineUnavailableError, SQLAlchemyError, OSError: Prefect or the database is away.
        """
        async with self._sessions() as session:
            resource = await session.get(Resource, self._id)
            heirs = await session.exec(select(Resource.id).where(Resource.work_pool == self._pool))
            is_free = heirs.first() is None
        if resource is None:
            if is_free:
                await withdraw_resource(self._engine, self._pool)
            raise ResourceDeletedError(f"The resource of work pool {self._pool!r} was deleted.")
        wanted = (resource.name, work_pool_of(resource))
        if wanted != self._published or not await self._engine.has_pool(self._pool):
            await publish_resource(self._engine, resource)
            self._published = wanted
