"""Restarts flow runs whose process died before it made their job.

The reconciler looks only at jobs, and these flow runs have none yet. Every worker of a resource
does this.
"""

import logging
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Failed
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, EngineRefusedError, job_id_of
from flows.watchers.jobs import Reconciler, Verdict, judge
from flows.watchers.unchanged import Unchanged
from flows.watchers.watcher import Watcher, refused
from fractal_models.settings import Settings
from fractal_models.tables import JobV2
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

_DIED = "its process died before there was a job"


class JoblessRuns(Watcher):
    """The flow runs without a job on one resource, except those that this worker executes."""

    seconds = 5.0

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        settings: Settings,
        reconciler: Reconciler,
        pool: str,
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._max_restarts = settings.max_restarts
        self._reconciler = reconciler
        self._pool = pool
        self._unchanged: Unchanged[UUID] = Unchanged()

    async def look(self) -> None:
        """Check all of them once; restart them, or end them after too many tries."""
        idle = {each.id: each for each in await self._without_job()}
        still = self._unchanged.seconds({id_: run.state_id for id_, run in idle.items()})
        for id_, flow_run in idle.items():
            try:
                await self._look_at_one(flow_run, min(still[id_], _overdue_seconds(flow_run)))
            except EngineRefusedError as error:
                refused(flow_run.name, error)

    async def _look_at_one(self, flow_run: FlowRun, seconds: float) -> None:
        verdict = judge(flow_run.state, seconds)
        if verdict is Verdict.STOP:
            await self._engine.end(flow_run.id, Cancelled(message="It was stopped."))
        elif verdict is Verdict.RESTART and flow_run.run_count > self._max_restarts:
            message = f"Given up after {flow_run.run_count} tries: {_DIED}."
            await self._engine.end(flow_run.id, Failed(message=message))
        elif verdict is Verdict.RESTART:
            await self._engine.restart(flow_run, f"Taken up again: {_DIED}.")
            logger.warning("%s is taken up again: %s.", flow_run.name, _DIED)

    async def _without_job(self) -> list[FlowRun]:
        """Flow runs that have begun, have no job, and are not executed by this worker."""
        begun_here = [
            each
            for each in await self._engine.begun_jobs(self._pool)
            if job_id_of(each) is None and each.id not in self._reconciler.executing
        ]
        if not begun_here:
            return []
        async with self._sessions() as session:
            ids = [each.id for each in begun_here]
            known = await session.exec(
                select(JobV2.flow_run_id).where(col(JobV2.flow_run_id).in_(ids))
            )
            with_job = set(known)
        return [each for each in begun_here if each.id not in with_job]


def _overdue_seconds(flow_run: FlowRun) -> float:
    """Seconds since its expected start; negative before, as processes start some seconds early."""
    if flow_run.expected_start_time is None:
        return 0.0
    return (now() - flow_run.expected_start_time).total_seconds()
