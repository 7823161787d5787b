"""Looks after the submitted jobs of a resource: each has a flow run, and somebody executes it.

Every worker of a resource does this. Nobody executes a job whose lock is free; what is to be done
about that is told by the state of its flow run. (Collections of tasks that nobody executes any more
are undone.)
"""

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled, Failed
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows import history, hooks
from flows.collect import undo_interrupted
from flows.engine import Engine, EngineUnavailableError
from flows.job_folder import JobFolder
from flows.job_lock import locked_jobs
from flows.launchers.local import LocalLauncher
from fractal_models.database import saved_id
from fractal_models.tables import JobV2, ProjectV2, Resource
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

_AWAY = (EngineUnavailableError, PrefectHTTPStatusError, SQLAlchemyError, OSError)

# The API makes a flow run itself, right after the job.
_TIME_OF_API = timedelta(seconds=10)
# A process that has just been started takes so long, at most, to take the lock of its job.
_SECONDS_TO_BEGIN, _SECONDS_TO_START = 4.0, 10.0


class Verdict(Enum):
    """What is to be done about a submitted job that nobody executes."""

    WAIT = "wait"
    RESTART = "restart"
    STOP = "stop"
    CONCLUDE_DONE = "conclude as done"
    CONCLUDE_FAILED = "conclude as failed"


def judge(state: State[Any] | None, seconds: float) -> Verdict:
    """What is to be done about a job whose flow run has been in a state for so many seconds.

    None: it is gone. A flow run that has ended and left its job submitted could not write it down.
    """
    if state is None or state.is_crashed():
        return Verdict.RESTART
    if state.is_running():
        return Verdict.RESTART if seconds >= _SECONDS_TO_BEGIN else Verdict.WAIT
    if state.is_pending():
        return Verdict.RESTART if seconds >= _SECONDS_TO_START else Verdict.WAIT
    if state.is_cancelling():
        return Verdict.STOP if seconds >= _SECONDS_TO_BEGIN else Verdict.WAIT
    if state.is_cancelled():
        return Verdict.STOP
    if state.is_completed():
        return Verdict.CONCLUDE_DONE
    return Verdict.CONCLUDE_FAILED if state.is_failed() else Verdict.WAIT


@dataclass(frozen=True)
class _Submitted:
    """What is looked at, of a submitted job."""

    id: int
    flow_run_id: UUID | None
    restarts: int
    start_timestamp: datetime


class Reconciler:
    """Acts on the jobs of one resource, a line in their logs for every act."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        resource_name: str,
        max_restarts: int,
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._resource_name = resource_name
        self._max_restarts = max_restarts
        # Of jobs that nobody executes: how they were found, and since when they are like that.
        self._found: dict[int, tuple[object, float]] = {}
        self._ended: set[int] = set()

    def process_ended(self, job_id: int) -> None:
        """The process that executed a job has ended: there is no need to wait for it."""
        self._ended.add(job_id)

    async def look(self) -> None:
        """Look once at all jobs.

        Raises:
            EngineUnavailableError, SQLAlchemyError, OSError: Prefect or the database is away.
        """
        async with self._sessions() as session:
            jobs = await _submitted_jobs(session, self._resource_name)
            locked = await locked_jobs(session)
        idle = [job for job in jobs if job.id not in locked]
        known = await self._engine.flow_runs([job.flow_run_id for job in idle if job.flow_run_id])
        ended, self._ended = self._ended, set()
        before, self._found = self._found, {}
        for job in idle:
            flow_run = known.get(job.flow_run_id) if job.flow_run_id else None
            as_found = job, flow_run.state.id if flow_run and flow_run.state else None
            was, since = before.get(job.id, (None, 0.0))
            since = since if was == as_found else time.monotonic()
            self._found[job.id] = as_found, since
            seconds = max(time.monotonic() - since, _pending_seconds(flow_run))
            seconds = math.inf if job.id in ended else seconds
            try:
                await self._look_at(job, flow_run, seconds)
            except PrefectHTTPStatusError as error:  # of this job, not of Prefect
                logger.warning("Job %s waits, Prefect refuses it: %s", job.id, error)
        async with self._sessions() as session:
            await undo_interrupted(session, self._engine, self._resource_name)

    async def _look_at(self, found: _Submitted, flow_run: FlowRun | None, seconds: float) -> None:
        if found.flow_run_id is None and found.start_timestamp > now() - _TIME_OF_API:
            return
        verdict = judge(flow_run.state if flow_run else None, seconds)
        if verdict is Verdict.WAIT:
            return
        async with self._sessions() as session:
            job = await _take(session, found)
            if job is None:
                return  # another worker's
            if flow_run is None:
                await self._dispatch(session, job)
            elif verdict is Verdict.RESTART:
                await self._restart(session, job, flow_run, ended=math.isinf(seconds))
            else:
                await self._conclude(session, job, flow_run, verdict)

    async def _dispatch(self, session: AsyncSession, job: JobV2) -> None:
        """Make the flow run of a job that has none: Prefect was away, or it was deleted."""
        if job.flow_run_id is not None:
            job.restarts += 1
        was = job.flow_run_id
        job.flow_run_id = await self._engine.submit_job(job, self._resource_name)
        await session.commit()
        why = "Prefect was away" if was is None else f"flow run {was} is gone"
        await self._tell(job, f"Job {job.id} gets its flow run: {why} before.")

    async def _restart(
        self, session: AsyncSession, job: JobV2, flow_run: FlowRun, *, ended: bool
    ) -> None:
        """Have a job whose process died (`ended`: that is known) executed again, or give it up."""
        assert flow_run.state is not None  # judged by it
        died = ended or not flow_run.state.is_pending()  # else it was never begun, which is no try
        how = f"its flow run is {flow_run.state.name}, but no process executes it"
        if died and job.restarts >= self._max_restarts:
            why = f"Given up after {job.restarts} restarts without progress: {how}."
            await self._engine.end(flow_run.id, Failed(message=why))
            await self._tell(job, why)
            await _stop_batches(job)
            await hooks.conclude_job(session, job, "failed", f"Job failed. {why}")
            return
        if not await self._engine.restart(flow_run, f"Taken up again: {how}."):
            return  # it is being stopped
        job.restarts += died
        count = f"restart {job.restarts} of at most {self._max_restarts} without progress"
        await session.commit()
        await self._tell(job, f"Job {job.id} is taken up again: {how} ({count}).")

    async def _conclude(
        self, session: AsyncSession, job: JobV2, flow_run: FlowRun, verdict: Verdict
    ) -> None:
        """Bring a job to the end that its flow run has, or that was asked for."""
        assert flow_run.state is not None  # judged by it
        message = flow_run.state.message or ""
        how = f"its flow run is {flow_run.state.name}, and no process executes it"
        await self._tell(job, f"Job {job.id} is brought to its end: {how}.")
        await _stop_batches(job)
        if verdict is Verdict.STOP:
            await hooks.conclude_job(session, job, "failed", f"Job stopped. {message}")
            if flow_run.state.is_cancelling():
                await self._engine.end(flow_run.id, Cancelled(message=message))
        elif verdict is Verdict.CONCLUDE_DONE and await _all_done(session, job):
            await hooks.conclude_job(session, job, "done", "Job done.")
        elif verdict is Verdict.CONCLUDE_DONE:
            why = "its flow run was set to Completed before all of its workflow tasks were done"
            await hooks.conclude_job(session, job, "failed", f"Job failed: {why}.")
        else:
            await hooks.conclude_job(session, job, "failed", f"Job failed. {message}")

    async def _tell(self, job: JobV2, message: str) -> None:
        """One line in the job's log, in the log of its flow run, and in the worker's."""
        logger.warning("%s", message)
        folder = JobFolder.of(job)
        try:
            if folder.path.exists():
                await asyncio.to_thread(folder.log, message)
            if job.flow_run_id is not None:
                await self._engine.log(job.flow_run_id, message)
        except (OSError, EngineUnavailableError, PrefectHTTPStatusError) as error:
            logger.warning("Job %s: the line above is not in all its logs: %s", job.id, error)


def _pending_seconds(flow_run: FlowRun | None) -> float:
    """For how long a flow run is being started: perhaps by a worker before this one."""
    if flow_run is None or flow_run.state is None or not flow_run.state.is_pending():
        return 0.0
    return (now() - flow_run.state.timestamp).total_seconds()


async def keep_looking(reconciler: Reconciler, seconds: float) -> None:
    """Look again and again. What is away is waited for."""
    while True:
        try:
            await reconciler.look()
        except _AWAY as error:
            logger.warning("The jobs could not be looked after, will try again: %s", error)
        await asyncio.sleep(seconds)


async def _submitted_jobs(session: AsyncSession, resource_name: str) -> list[_Submitted]:
    found = await session.execute(
        select(JobV2.id, JobV2.flow_run_id, JobV2.restarts, JobV2.start_timestamp)
        .join(ProjectV2, col(ProjectV2.id) == col(JobV2.project_id))
        .join(Resource, col(Resource.id) == col(ProjectV2.resource_id))
        .where(JobV2.status == "submitted", Resource.name == resource_name)
        .order_by(col(JobV2.id))
    )
    return [_Submitted(*row) for row in found]


async def _take(session: AsyncSession, found: _Submitted) -> JobV2 | None:
    """The job's row, for this worker alone until the commit; None if it is not as it was found."""
    rows = await session.exec(
        select(JobV2).where(JobV2.id == found.id).with_for_update(skip_locked=True)
    )
    job = rows.first()
    if job is None or job.status != "submitted" or found.id in await locked_jobs(session):
        return None
    same = (job.flow_run_id, job.restarts) == (found.flow_run_id, found.restarts)
    return job if same else None


async def _all_done(session: AsyncSession, job: JobV2) -> bool:
    runs = await history.runs_of_job(session, saved_id(job))
    orders = {task["order"] for task in job.workflow_dump["task_list"]}
    return orders == {order for order, run in runs.items() if run.status == "done"}


async def _stop_batches(job: JobV2) -> None:
    """End the units of a job that nobody executes."""
    launcher = LocalLauncher()
    for folder in await asyncio.to_thread(JobFolder.of(job).batches):
        await launcher.stop(folder)
