"""The reconciler: makes sure that each submitted job has a flow run, and a process that runs it.

Every worker of a resource does this. If the lock of a job is free, no process runs the job; the
state of its flow run then decides what to do.
"""

import asyncio
import logging
import math
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Failed
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, EngineError, EngineRefusedError, EngineUnavailableError
from flows.engine.wait_reasons import last_reason, waiting_line, waits, why_it_waits
from flows.job import end
from flows.launchers.base import Launcher
from flows.launchers.choice import launcher_of
from flows.process.lock import LockedError, free_job, holding_job, locked_jobs
from flows.records import jobs, runs
from flows.records.events import Outcome
from flows.records.jobs import GIVEN_UP, WaitingLine, outcome_of_stop
from flows.reports.sentences import sentence, words_of
from flows.submission import profile_of
from flows.units.job_folder import JobFolder
from flows.watchers.aside import Aside
from flows.watchers.unchanged import Unchanged
from flows.watchers.watcher import Watcher, refused
from fractal_models.database import DatabaseAwayError, release, saved_id
from fractal_models.settings import Settings
from fractal_models.tables import JobV2, ProjectV2, Resource
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

# The API makes a flow run right after the job. If both make one, it is the same, by its key.
_TIME_OF_API = timedelta(seconds=5)
# How long all jobs of a look are waited for; what takes longer goes on aside. To end a job on a
# cluster that does not answer takes minutes.
_LOOK_SECONDS, _MOST_ASIDE = 2.0, 10
# How long a process takes at most, after its start, to take the lock of its job.
_SECONDS_TO_BEGIN, _SECONDS_TO_START = 4.0, 10.0


class Verdict(Enum):
    """What to do about a submitted job that no process runs."""

    WAIT = "wait"
    RESTART = "restart"
    STOP = "stop"
    CONCLUDE_DONE = "conclude as done"
    CONCLUDE_FAILED = "conclude as failed"


def judge(state: State[Any] | None, seconds: float) -> Verdict:
    """What to do about a job whose flow run has been in this state for this many seconds.

    None: the flow run does not exist any more. If a flow run has ended but its job is still
    `submitted`, its process could not record the end.
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
    """The facts that are looked at, of a submitted job."""

    id: int
    flow_run_id: UUID | None
    restarts: int
    stop_reason: str | None
    log: str | None = field(compare=False)


class Reconciler(Watcher):
    """Looks after the jobs of one resource, and writes a line to their logs for everything it does.

    `executing` are the flow runs for which the worker that owns this reconciler has a living
    process; `stopping` are the flow runs of jobs that have been told to stop and have not ended.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        settings: Settings,
        pool: str,
    ) -> None:
        self.executing: set[UUID] = set()
        self.stopping: set[UUID] = set()
        self._sessions = sessions
        self._engine = engine
        self._database_url = settings.async_database_url
        self._max_restarts = settings.max_restarts
        self._pool = pool
        self._unchanged: Unchanged[_Submitted] = Unchanged()
        self._ended: set[UUID] = set()
        self._killed: set[UUID] = set()
        self._stop_seconds = settings.stop_seconds
        self._not_stopping: Unchanged[int] = Unchanged()
        # A job is locked meanwhile, so that nobody else looks at it.
        self._aside = Aside(_LOOK_SECONDS, _MOST_ASIDE)

    def process_killed(self, flow_run_id: UUID) -> None:
        """Note that the process of a flow run was killed because it did not stop."""
        self._killed.add(flow_run_id)

    def process_ended(self, flow_run_id: UUID) -> None:
        """Note that the process of a flow run has ended, so that nobody waits for it."""
        self._ended.add(flow_run_id)

    async def look(self) -> None:
        """Check all submitted jobs once."""
        async with self._sessions() as session:
            jobs = await _submitted_jobs(session, self._pool)
            locked = await locked_jobs(session)
            self.stopping = {
                job.flow_run_id for job in jobs if job.flow_run_id and job.stop_reason is not None
            }
            await self._free(session, [job for job in jobs if job.id in locked])
        idle = [
            job for job in jobs if job.id not in locked and job.flow_run_id not in self.executing
        ]
        known = await self._engine.flow_runs([job.flow_run_id for job in idle if job.flow_run_id])
        ended, self._ended = self._ended, set()
        found = {job: known.get(job.flow_run_id) if job.flow_run_id else None for job in idle}
        still = self._unchanged.seconds(
            {job: run.state.id if run and run.state else None for job, run in found.items()}
        )
        self._aside.renew()
        for job, flow_run in found.items():
            seconds = max(still[job], _pending_seconds(flow_run))
            seconds = math.inf if job.flow_run_id in ended else seconds
            if self._aside.has_room:
                await self._aside.do(f"Job {job.id}", self._look_at_one(job, flow_run, seconds))
        await self._tell_why_they_wait(found)

    async def _free(self, session: AsyncSession, locked: list[_Submitted]) -> None:
        """Take the locks of jobs that must stop, but whose process no worker can stop or kill.

        This happens only after twice `stop_seconds`: in that time their worker, if there is one,
        would have stopped or killed the process.
        """
        seconds = self._not_stopping.seconds(
            {
                job.id: (job.flow_run_id, job.restarts)
                for job in locked
                if job.stop_reason is not None and job.flow_run_id not in self.executing
            }
        )
        for job_id in [each for each in seconds if seconds[each] > 2 * self._stop_seconds]:
            try:
                freed = await free_job(session, job_id)
            except SQLAlchemyError:  # e.g. if another role of PostgreSQL holds it
                logger.exception("Job %s cannot be taken from its process.", job_id)
                return
            if freed:
                logger.warning("Job %s is taken from its process, which does not stop.", job_id)

    async def _look_at_one(
        self, found: _Submitted, flow_run: FlowRun | None, seconds: float
    ) -> None:
        """Check one job. An error that concerns only this job must not delay the others."""
        verdict = judge(flow_run.state if flow_run else None, seconds)
        if verdict is Verdict.WAIT:
            return
        try:
            async with holding_job(self._database_url, found.id), self._sessions() as session:
                job = await session.get(JobV2, found.id)
                if job is not None and _is_as_found(job, found):
                    await self._act(session, job, flow_run, verdict, ended=math.isinf(seconds))
        except LockedError:
            return  # it is executed by now, or another worker looks at it
        except (EngineUnavailableError, DatabaseAwayError):
            raise
        except EngineRefusedError as error:
            refused(f"Job {found.id}", error)
        except Exception:
            logger.exception("Job %s could not be looked after.", found.id)

    async def _tell_why_they_wait(self, found: dict[_Submitted, FlowRun | None]) -> None:
        """Write a line to the log of each job that waits for another reason than its log says."""
        moment = now()
        waiting = {job: run for job, run in found.items() if run and waits(run, moment)}
        limits = await self._engine.pool_limits(self._pool) if waiting else None
        if limits is None:
            return
        reasons = {
            job: reason
            for job, run in waiting.items()
            if (reason := why_it_waits(run, limits)) and reason != last_reason(job.log)
        }
        if not reasons:
            return
        async with self._sessions() as session:
            begun = await locked_jobs(session)
            lines = [
                WaitingLine(job.id, job.log, waiting_line(reason, moment))
                for job, reason in reasons.items()
                if job.id not in begun
            ]
            told = await jobs.tell_waiting(session, lines)
        messages = {
            waiting[job].id: f"Waiting: {reasons[job]}" for job in reasons if job.id in told
        }
        if messages:
            await self._engine.log(messages)

    async def _act(
        self,
        session: AsyncSession,
        job: JobV2,
        flow_run: FlowRun | None,
        verdict: Verdict,
        *,
        ended: bool,
    ) -> None:
        begun = bool(await runs.runs_of_job(session, saved_id(job)))
        await release(session)
        if flow_run is None:
            if job.stop_reason is not None and not begun:
                await self._conclude(
                    session, job, outcome_of_stop(job.stop_reason), job.stop_reason
                )
            else:
                await self._dispatch(session, job)
        elif verdict is Verdict.RESTART:
            await self._restart(session, job, flow_run, ended=ended)
        elif verdict is Verdict.STOP:
            await self._stop(session, job, flow_run, begun=begun)
        else:
            await self._end(session, job, flow_run, verdict)

    async def _dispatch(self, session: AsyncSession, job: JobV2) -> None:
        """Make a flow run for a job without one: Prefect was away, or the flow run was deleted."""
        why = "Prefect was away"
        if (gone := job.flow_run_id) is not None:
            why = f"its flow run {gone} was deleted"
            job.flow_run_id = None  # first, so that the job can get the new one
            job.restarts += 1
            await session.commit()
        job.flow_run_id = await self._engine.submit_job(job, await self._resource(session))
        await session.commit()
        await self._tell(job, f"Job {job.id} gets a flow run: {why}.")

    async def _restart(
        self, session: AsyncSession, job: JobV2, flow_run: FlowRun, *, ended: bool
    ) -> None:
        """Restart a job whose process died, or give the job up after too many restarts.

        `ended` says that the process is known to have ended.
        """
        assert flow_run.state is not None  # judged by it
        died = ended or not flow_run.state.is_pending()  # if not, no process began
        how = f"its flow run is {flow_run.state.name}, but no process executes it"
        if self._count_kill(job):
            how = "its process did not stop, and was killed"
        if died and job.restarts > self._max_restarts:
            reason = job.stop_reason or GIVEN_UP
            await self._engine.end(flow_run.id, Failed(message=reason))
            await self._conclude(session, job, outcome_of_stop(reason), reason)
            return
        job.restarts += died
        what = f"restart {job.restarts} of at most {self._max_restarts} without progress"
        if job.restarts > self._max_restarts:
            what = f"{GIVEN_UP} after {self._max_restarts} restarts without progress: {how}."
            job.stop_reason = job.stop_reason or what
        if await self._engine.restart(flow_run, f"Taken up again: {how}."):
            await session.commit()
            await self._tell(job, f"Job {job.id} is taken up again: {how} ({what}).")

    async def _stop(
        self, session: AsyncSession, job: JobV2, flow_run: FlowRun, *, begun: bool
    ) -> None:
        """End a job that was cancelled. If a task has begun, the job is restarted to stop it."""
        assert flow_run.state is not None  # judged by it
        reason = job.stop_reason or flow_run.state.message or "Its flow run was cancelled."
        killed = " Its process did not stop, and was killed." if self._count_kill(job) else ""
        if begun and job.restarts <= self._max_restarts:
            job.stop_reason = reason
            job.restarts += 1
            await session.commit()
            await self._engine.restart(flow_run, f"To stop: {reason}", always=True)
            again = f"Job {job.id} is taken up again, to be stopped. {sentence(reason)}{killed}"
            await self._tell(job, again)
            return
        if not flow_run.state.is_cancelled():
            await self._engine.end(flow_run.id, Cancelled(message=reason))
        await self._conclude(session, job, outcome_of_stop(reason), reason)

    def _count_kill(self, job: JobV2) -> bool:
        """Whether the job's process was killed because it did not stop.

        If so, the job has one more restart for stopping, and then none.
        """
        if job.flow_run_id not in self._killed:
            return False
        self._killed.discard(job.flow_run_id)
        job.restarts = max(job.restarts, self._max_restarts)
        return True

    async def _end(
        self, session: AsyncSession, job: JobV2, flow_run: FlowRun, verdict: Verdict
    ) -> None:
        """End a job in the way in which its flow run has ended."""
        assert flow_run.state is not None  # judged by it
        how = f"its flow run is {flow_run.state.name}, and no process executes it"
        await self._tell(job, f"Job {job.id} is brought to its end: {how}.")
        if verdict is Verdict.CONCLUDE_FAILED:
            await self._conclude(session, job, "failed", flow_run.state.message or "")
        elif await _all_done(session, job):
            await self._conclude(session, job, "done")
        else:
            why = "Its flow run was set to Completed before all of its workflow tasks were done."
            await self._conclude(session, job, "failed", why)

    async def _conclude(
        self, session: AsyncSession, job: JobV2, outcome: Outcome, reason: str = ""
    ) -> None:
        """Stop a job's units and record its end. Results since the last recording are lost."""
        try:
            async with asyncio.timeout(self._stop_seconds):
                await self._stop_units(session, job)
        except (SQLAlchemyError, DatabaseAwayError):
            raise
        except Exception as error:  # whatever it is, the job ends
            logger.exception("Units of job %s could not be stopped.", job.id)
            words = "it took too long." if isinstance(error, TimeoutError) else words_of(error)
            reason = f"{sentence(reason)} Units that still ran could not be stopped: {words}"
        await end.conclude_job(session, job, outcome, reason)

    async def _stop_units(self, session: AsyncSession, job: JobV2) -> None:
        await release(session)
        folders = await asyncio.to_thread(JobFolder.of(job).batches)
        if not folders:
            return
        launcher = await self._launcher(session, job)
        await release(session)
        try:
            for folder in folders:
                await launcher.stop(folder)
        finally:
            await launcher.close()

    async def _launcher(self, session: AsyncSession, job: JobV2) -> Launcher:
        resource = await self._resource(session)

        async def account(slurm_job_id: int) -> None:
            await jobs.account_slurm(session, saved_id(job), resource.id, slurm_job_id)

        profile = await profile_of(session, job.user_email)
        config = resource.jobs_runner_config
        return launcher_of(job, resource, profile, config, on_submitted=account, say=logger.info)

    async def _resource(self, session: AsyncSession) -> Resource:
        found = await session.exec(select(Resource).where(Resource.work_pool == self._pool))
        return found.one()

    async def _tell(self, job: JobV2, message: str) -> None:
        """Write a line to the job's log, to the log of its flow run, and to the worker's log."""
        logger.warning("%s", message)
        folder = JobFolder.of(job)
        try:
            if folder.path.exists():
                await asyncio.to_thread(folder.log, message)
            if job.flow_run_id is not None:
                await self._engine.log({job.flow_run_id: message})
        except (OSError, EngineError) as error:
            logger.warning("Job %s: the line above is not in all its logs: %s", job.id, error)


def _pending_seconds(flow_run: FlowRun | None) -> float:
    """Seconds that a flow run has been pending, also under another worker; 0 if it is not."""
    if flow_run is None or flow_run.state is None or not flow_run.state.is_pending():
        return 0.0
    return (now() - flow_run.state.timestamp).total_seconds()


async def _submitted_jobs(session: AsyncSession, pool: str) -> list[_Submitted]:
    moment = now()
    columns: list[Any] = [getattr(JobV2, each.name) for each in fields(_Submitted)]
    found = await session.execute(
        select(*columns)
        .join(ProjectV2, col(ProjectV2.id) == col(JobV2.project_id))
        .join(Resource, col(Resource.id) == col(ProjectV2.resource_id))
        .where(
            JobV2.status == "submitted",
            Resource.work_pool == pool,
            or_(
                col(JobV2.flow_run_id).is_not(None),
                # The second condition: the clock was set back since.
                col(JobV2.start_timestamp) < moment - _TIME_OF_API,
                col(JobV2.start_timestamp) > moment + _TIME_OF_API,
            ),
        )
        .order_by(col(JobV2.id))
    )
    return [_Submitted(*row) for row in found]


def _is_as_found(job: JobV2, found: _Submitted) -> bool:
    same = (job.flow_run_id, job.restarts, job.stop_reason)
    return job.status == "submitted" and same == (
        found.flow_run_id,
        found.restarts,
        found.stop_reason,
    )


async def _all_done(session: AsyncSession, job: JobV2) -> bool:
    begun = await runs.runs_of_job(session, saved_id(job))
    orders = {task["order"] for task in job.workflow_dump["task_list"]}
    return orders == {runs.order_of(run) for run in begun if run.status == "done"}
