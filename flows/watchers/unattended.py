"""Writes into the logs of jobs that they wait because their resource has no worker."""

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.engine.wait_reasons import last_reason, waiting_line, without_worker
from flows.process.lock import locked_jobs
from flows.records.jobs import WaitingLine, tell_waiting
from flows.watchers.watcher import Watcher
from fractal_models.tables import JobV2, ProjectV2, Resource
from fractal_models.tables.columns import now


class UnattendedJobs(Watcher):
    """The submitted jobs of all resources; some resources may have no worker."""

    seconds = 10.0

    def __init__(self, sessions: async_sessionmaker[AsyncSession], engine: Engine) -> None:
        self._sessions = sessions
        self._engine = engine

    async def look(self) -> None:
        """Check all submitted jobs that no process runs."""
        async with self._sessions() as session:
            submitted = await _submitted(session)
            locked = await locked_jobs(session) if submitted else set()
        waiting = [each for each in submitted if each[0] not in locked]
        pools = sorted({pool for _, _, _, pool in waiting})
        left = await self._engine.pools_without_worker(pools) if pools else set()
        lines = [
            WaitingLine(job_id, log, waiting_line(reason, now()))
            for job_id, log, name, pool in waiting
            if pool in left and (reason := without_worker(name)) != last_reason(log)
        ]
        async with self._sessions() as session:
            await tell_waiting(session, lines)


async def _submitted(session: AsyncSession) -> list[tuple[int, str | None, str, str]]:
    """Id and log of each submitted job, with the name and the work pool of its resource."""
    found = await session.execute(
        select(col(JobV2.id), col(JobV2.log), col(Resource.name), col(Resource.work_pool))
        .join(ProjectV2, col(ProjectV2.id) == col(JobV2.project_id))
        .join(Resource, col(Resource.id) == col(ProjectV2.resource_id))
        .where(JobV2.status == "submitted")
    )
    return [(job_id, log, name, pool) for job_id, log, name, pool in found]
