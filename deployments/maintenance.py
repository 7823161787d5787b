"""Pauses a resource for a while, for an upgrade of Prefect or of the resource's cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, open_engine
from flows.engine.pauses import PauseRefusedError, pause, resume
from flows.engine.publication import hold_resource
from flows.process.lock import locked_jobs
from fractal_models.database import open_database
from fractal_models.errors import FractalError
from fractal_models.settings import Settings
from fractal_models.tables import JobV2, ProjectV2, Resource

_REASON = "Paused with its resource."
_LOOK_SECONDS = 0.5

Tell = Callable[[str], object]


class UnknownResourceError(FractalError):
    """There is no resource of this name."""


async def find_resource(session: AsyncSession, name: str) -> Resource:
    """The resource with this name.

    Raises:
        UnknownResourceError: there is none; the message lists the existing ones.
    """
    found = await session.exec(select(Resource).where(Resource.name == name))
    if (resource := found.first()) is None:
        names = ", ".join((await session.exec(select(Resource.name))).all())
        raise UnknownResourceError(
            f"There is no resource {name!r}; there are: {names or 'none yet'}."
        )
    return resource


async def find_resource_of(session: AsyncSession, work_pool: str) -> Resource:
    """The resource to which a work pool belongs, whatever the resource is called now.

    Raises:
        UnknownResourceError: no resource has this work pool, e.g. because it was deleted.
    """
    found = await session.exec(select(Resource).where(Resource.work_pool == work_pool))
    if (resource := found.first()) is None:
        raise UnknownResourceError(f"No resource has the work pool {work_pool!r}.")
    return resource


async def pause_resource(settings: Settings, name: str, tell: Tell, *, wait: bool) -> None:
    """Let no job begin on a resource, and let running jobs pause after their current workflow task.

    With `wait`, return only when no process runs a job any more.

    Raises:
        UnknownResourceError, EngineUnavailableError: nothing has changed.
    """
    async with _reaching(settings, name) as (sessions, engine, pool):
        await hold_resource(engine, pool, True)
        tell(f"Nothing begins on resource {name!r} any more.")
        await _pause_jobs(engine, pool, tell)
        if wait:
            await _wait_for_jobs(sessions, pool, tell)


async def continue_resource(settings: Settings, name: str, tell: Tell) -> None:
    """Let jobs begin on a resource again, and resume the jobs that were paused with it.

    Raises:
        UnknownResourceError, EngineUnavailableError: nothing has changed.
    """
    async with _reaching(settings, name) as (_, engine, pool):
        await hold_resource(engine, pool, False)
        tell(f"Jobs begin on resource {name!r} again.")
        for flow_run in await engine.paused_jobs(pool):
            if flow_run.state is not None and flow_run.state.message == _REASON:
                await resume(engine, flow_run.id)
                tell(f"Goes on: {flow_run.name}")


@asynccontextmanager
async def _reaching(
    settings: Settings, name: str
) -> AsyncIterator[tuple[async_sessionmaker[AsyncSession], Engine, str]]:
    """Connections to the database and to Prefect, and the work pool of an existing resource."""
    async with (
        open_database(settings.async_database_url) as sessions,
        open_engine(settings) as engine,
    ):
        async with sessions() as session:
            resource = await find_resource(session, name)
        yield sessions, engine, resource.work_pool


async def _pause_jobs(engine: Engine, pool: str, tell: Tell) -> None:
    for flow_run in await engine.begun_jobs(pool):
        try:
            await pause(engine, flow_run.id, _REASON)
        except PauseRefusedError as error:  # it has just ended, or is being stopped
            tell(f"Not paused: {flow_run.name}. {error}")
        else:
            tell(f"Pauses after its workflow task: {flow_run.name}")


async def _wait_for_jobs(sessions: async_sessionmaker[AsyncSession], pool: str, tell: Tell) -> None:
    told: set[int] = set()
    while True:
        async with sessions() as session:
            executed = await locked_jobs(session) & await _submitted(session, pool)
        if not executed:
            return
        if executed != told:
            tell(f"Waiting for jobs: {', '.join(map(str, sorted(executed)))}")
            told = executed
        await asyncio.sleep(_LOOK_SECONDS)


async def _submitted(session: AsyncSession, pool: str) -> set[int]:
    found = await session.exec(
        select(JobV2.id)
        .join(ProjectV2, col(ProjectV2.id) == col(JobV2.project_id))
        .join(Resource, col(Resource.id) == col(ProjectV2.resource_id))
        .where(JobV2.status == "submitted", Resource.work_pool == pool)
    )
    return {job_id for job_id in found if job_id is not None}
