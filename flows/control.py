"""What people do with a submitted job: hand it to Prefect, stop it, or end it."""

import asyncio
import logging
from functools import partial
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import (
    Engine,
    EngineRefusedError,
    EngineUnavailableError,
    UnpublishedError,
)
from flows.engine.wait_reasons import PREFECT_AWAY, waiting_line, without_worker
from flows.process.lock import LockedError, holding_job
from flows.records.jobs import (
    WaitingLine,
    end_job,
    give_flow_run,
    request_stop,
    tell_waiting,
)
from flows.records.observation import is_attended
from flows.records.runs import abandon_runs
from flows.reports.sentences import words_of
from flows.units.job_files import log_so_far
from fractal_models.database import release, saved_id
from fractal_models.errors import RefusedError
from fractal_models.tables import JobV2, Resource
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

# A worker of which the database has a sign of life that is no older need not be asked after.
_SIGN_SECONDS = 20.0


def require_submitted(job: JobV2) -> None:
    """Raise RefusedError if the job has ended."""
    if job.status != "submitted":
        raise RefusedError(f"Job {job.id} has ended already ({job.status}).")


async def hand_over(session: AsyncSession, engine: Engine, job: JobV2, resource: Resource) -> None:
    """Make the flow run of a new job. If the job will have to wait, its log says why.

    If the database is away, a worker makes up for it.
    """
    try:
        reason = await _begin(session, engine, job, resource)
        if reason is not None:
            line = WaitingLine(saved_id(job), job.log, waiting_line(reason, now()))
            await tell_waiting(session, [line])
    except (SQLAlchemyError, OSError) as error:
        logger.warning("Job %s waits for the database: %s", job.id, words_of(error))


async def _begin(
    session: AsyncSession, engine: Engine, job: JobV2, resource: Resource
) -> str | None:
    """Make the flow run of a new job. Returns why the job will have to wait, if it will."""
    flow_run_id = None
    try:
        flow_run_id = await engine.submit_job(job, resource)
        if not await give_flow_run(session, saved_id(job), flow_run_id):
            await engine.cancel_at_once(flow_run_id, "The job was stopped before it began.")
            return None
        attended = await is_attended(session, resource.work_pool, _SIGN_SECONDS)
        await release(session)
        if attended or not await engine.pools_without_worker([resource.work_pool]):
            return None
        return without_worker(resource.name)
    except UnpublishedError:
        return without_worker(resource.name)
    except EngineUnavailableError as error:
        logger.warning("Job %s waits for Prefect: %s", job.id, error)
        return PREFECT_AWAY if flow_run_id is None else None
    except EngineRefusedError as error:
        logger.warning("Job %s waits, as Prefect refuses its flow run: %s", job.id, error)
        return None


async def request_end(session: AsyncSession, engine: Engine, job: JobV2) -> None:
    """Ask a job to stop.

    The process that runs the job, now or after an interruption, will read this from the database;
    the message through Prefect only makes it faster.

    Raises:
        RefusedError: the job has ended.
    """
    require_submitted(job)
    job_id = saved_id(job)
    await request_stop(session, job_id, "Stopped through the Fractal API.")
    reason = "The job was stopped before it began."
    end = partial(end_job, session, job_id, outcome="stopped", reason=reason)
    if job.flow_run_id is None and await end(only_without_flow_run=True):
        return
    await session.refresh(job, ["flow_run_id"])
    await release(session)
    try:
        ended = job.flow_run_id is not None and await engine.cancel(job.flow_run_id)
    except EngineUnavailableError as error:
        logger.warning("Job %s will stop without being told by Prefect: %s", job.id, error)
        return
    if ended and not await asyncio.to_thread(Path(str(job.working_dir)).exists):
        await end()


async def end_as_failed(
    session: AsyncSession, engine: Engine, database_url: URL, job: JobV2, reason: str
) -> None:
    """End a job that no process runs. Its flow run is cancelled first, so that no process ever
    will.

    Raises:
        RefusedError: a process runs the job, or the job has ended.
        EngineUnavailableError: its flow run cannot be cancelled; nothing was changed.
    """
    try:
        async with holding_job(database_url, saved_id(job)):
            await session.refresh(job)
            require_submitted(job)
            await release(session)
            if job.flow_run_id is not None:
                await engine.cancel_at_once(job.flow_run_id, reason)
            story = await log_so_far(job) or ""
            await abandon_runs(session, job)
            await end_job(session, saved_id(job), outcome="failed", reason=reason, story=story)
            await session.refresh(job)
    except LockedError as error:
        raise RefusedError(
            f"Job {job.id} is being executed: stop it, and wait for its end."
        ) from error
