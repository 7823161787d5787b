"""Looks after flow runs that began in Prefect and lost their process before they had a job.

Those that have one are the reconciler's.
"""

import logging
from collections.abc import Collection, Iterable
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Failed
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine import Engine
from flows.stillness import Stillness
from fractal_models.tables import JobV2

logger = logging.getLogger(__name__)

# Longer than it takes to start a process that makes the job.
_STILL_SECONDS = 10.0


class StrandedRuns:
    """Has such flow runs of one resource executed again, as often as a job that gets nowhere.

    `executing` are the flow runs of which the worker beside it has a process that lives.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        max_restarts: int,
        resource_name: str,
        executing: Collection[UUID],
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._max_restarts = max_restarts
        self._resource_name = resource_name
        self._executing = executing
        self._stillness: Stillness[UUID] = Stillness()

    async def look(self) -> None:
        """Look once at all flow runs that have begun.

        Raises:
            EngineUnavailableError, SQLAlchemyError, OSError: Prefect or the database is away.
        """
        begun = await self._engine.begun_jobs(self._resource_name)
        lost = {run.id: run for run in begun if run.id not in self._executing}
        for flow_run_id in await self._with_job(lost):
            del lost[flow_run_id]
        still = self._stillness.seconds({id_: run.state_id for id_, run in lost.items()})
        for flow_run_id, seconds in still.items():
            if seconds >= _STILL_SECONDS:
                await self._take_up(lost[flow_run_id])

    async def _with_job(self, flow_run_ids: Iterable[UUID]) -> list[UUID]:
        ids = list(flow_run_ids)
        if not ids:
            return []
        async with self._sessions() as session:
            found = await session.exec(
                select(JobV2.flow_run_id).where(col(JobV2.flow_run_id).in_(ids))
            )
            return [flow_run_id for flow_run_id in found if flow_run_id is not None]

    async def _take_up(self, flow_run: FlowRun) -> None:
        state = flow_run.state
        if state is not None and state.is_cancelling():
            await self._engine.end(flow_run.id, Cancelled(message="Stopped before it had a job."))
        elif flow_run.run_count > self._max_restarts:
            why = f"Given up: its process died {flow_run.run_count} times before it had a job."
            await self._engine.end(flow_run.id, Failed(message=why))
        else:
            logger.warning("%s is taken up again: it has no job, and no process.", flow_run.name)
            await self._engine.restart(flow_run, "Taken up again: no process executes it.")
