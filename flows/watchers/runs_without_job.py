"""Looks after flow runs that no submitted job looks after: without a job, or left by one.

The reconciler looks only at submitted jobs. A process may have died before it made the job; and
Prefect lets no flow run complete whose job ended in the moment in which it was to stop. Every
worker of a resource does this.
"""

import logging
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Completed, Failed
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
    """The flow runs without a job, or whose job has ended, that this worker does not execute."""

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
        begun_here = [
            each
            for each in await self._engine.begun_jobs(self._pool)
            if each.id not in self._reconciler.executing
        ]
        statuses = await self._statuses_of_jobs([each.id for each in begun_here])
        idle = {
            each.id: each
            for each in begun_here
            if (statuses[each.id] != "submitted" if each.id in statuses else not job_id_of(each))
        }
        still = self._unchanged.seconds({id_: run.state_id for id_, run in idle.items()})
        for id_, flow_run in idle.items():
            verdict = judge(flow_run.state, min(still[id_], _overdue_seconds(flow_run)))
            try:
                if id_ in statuses:
                    await self._end_like_its_job(flow_run, verdict, statuses[id_])
                else:
                    await self._go_on_or_end(flow_run, verdict)
            except EngineRefusedError as error:
                refused(flow_run.name, error)

    async def _go_on_or_end(self, flow_run: FlowRun, verdict: Verdict) -> None:
        if verdict is Verdict.STOP:
            await self._engine.end(flow_run.id, Cancelled(message="It was stopped."))
        elif verdict is Verdict.RESTART and flow_run.run_count > self._max_restarts:
            message = f"Given up after {flow_run.run_count} tries: {_DIED}."
            await self._engine.end(flow_run.id, Failed(message=message))
        elif verdict is Verdict.RESTART:
            await self._engine.restart(flow_run, f"Taken up again: {_DIED}.")
            logger.warning("%s is taken up again: %s.", flow_run.name, _DIED)

    async def _end_like_its_job(self, flow_run: FlowRun, verdict: Verdict, status: str) -> None:
        """End a flow run that is to stop, though its job has ended; it would take a slot for ever.

        Prefect has refused its process to complete it.
        """
        if verdict is Verdict.STOP:
            state = Completed if status == "done" else Cancelled
            message = "It was to be stopped when its job had ended."
            await self._engine.end(flow_run.id, state(message=message))

    async def _statuses_of_jobs(self, flow_run_ids: list[UUID]) -> dict[UUID | None, str]:
        """The statuses of the jobs of these flow runs, of those that have one."""
        if not flow_run_ids:
            return {}
        async with self._sessions() as session:
            found = await session.execute(
                select(JobV2.flow_run_id, JobV2.status).where(
                    col(JobV2.flow_run_id).in_(flow_run_ids)
                )
            )
            return dict(found.tuples().all())


def _overdue_seconds(flow_run: FlowRun) -> float:
    """Seconds since its expected start; negative before, as processes start some seconds early."""
    if flow_run.expected_start_time is None:
        return 0.0
    return (now() - flow_run.expected_start_time).total_seconds()
