"""How the process of a flow run finds or makes its job, and locks it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from prefect.client.schemas.objects import FlowRun
from prefect.context import AsyncClientContext
from prefect.logging import get_run_logger
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, EngineError, job_id_of
from flows.engine.wait_reasons import describe_wait
from flows.job.request import make_job
from flows.job.run import JobEndedError, JobRun, JobUnavailableError, interrupt
from flows.parameters import JobRequest
from flows.process.lock import LockedError, lock_job
from flows.process.signals import EXIT_INTERRUPTED, EXIT_SUPERFLUOUS, leave
from flows.records import runs
from flows.schedules.occurrences import TAG, parameters_now
from flows.submission import profile_of, reopen_job
from flows.units.job_folder import JobFolder
from fractal_models.database import is_outage, open_database, release, saved_id
from fractal_models.errors import DatasetBusyError, NotNowError
from fractal_models.settings import Settings, get_settings
from fractal_models.tables import (
    DatasetV2,
    JobV2,
    ProjectV2,
    Resource,
)
from fractal_models.tables.columns import now


@asynccontextmanager
async def open_job(flow_run: FlowRun, request: JobRequest) -> AsyncIterator[JobRun]:
    """Open the job of a flow run, with everything that this process needs to run it alone.

    A flow run without a job makes one, as `request` says. A failed job is continued. This process
    ends without changing anything if another process runs the job for the same flow run, or if the
    database is away.

    Raises:
        JobUnavailableError: there is nothing to run for this flow run.
        JobRefusedError, NotFoundError, ForbiddenError: the job cannot be made or continued.
    """
    settings = get_settings()
    async with (
        open_database(settings.async_database_url) as sessions,
        AsyncClientContext.get_or_create() as context,
    ):
        try:
            run = await _open(settings, sessions, Engine(context.client), flow_run, request)
        except LockedError:
            leave(EXIT_SUPERFLUOUS)
        except Exception as error:
            if is_outage(error):
                leave(EXIT_INTERRUPTED)
            raise
        run.folder.create()
        if run.waited:
            run.say(run.waited)
        obeying = asyncio.create_task(run.obey())
        try:
            yield run
        finally:
            obeying.cancel()


async def _open(
    settings: Settings,
    sessions: async_sessionmaker[AsyncSession],
    engine: Engine,
    flow_run: FlowRun,
    request: JobRequest,
) -> JobRun:
    async with sessions() as session:
        job = await _job_of(session, engine, flow_run, request)
        job_id = saved_id(job)
        interrupted = partial(interrupt, JobFolder.of(job))
        await release(session)
        await lock_job(settings.async_database_url, job_id, interrupted)
        # Who had the lock may have ended it.
        job = await session.get_one(JobV2, job_id, populate_existing=True)
        if job.status == "done":
            raise JobEndedError(f"Job {job_id} has ended already, it is done.")
        if job.status == "failed":
            await reopen_job(session, job)
        if waited := describe_wait(job.log, now()):
            job.log = None
            await session.commit()
        dataset = await session.get_one(DatasetV2, job.dataset_id)
        project = await session.get_one(ProjectV2, job.project_id)
        resource = await session.get_one(Resource, project.resource_id)
        profile = await profile_of(session, job.user_email)
        recorded = await runs.runs_of_job(session, job_id)
    if job_id_of(flow_run) is None:
        await _entitle(engine, flow_run, job, resource)
    run = JobRun(
        job,
        dataset.zarr_dir,
        recorded,
        resource,
        profile,
        settings.max_restarts,
        sessions,
        engine,
        flow_run.id,
    )
    run.waited = waited
    if job.stop_reason is not None:
        run.stop(job.stop_reason)
    return run


async def _job_of(
    session: AsyncSession, engine: Engine, flow_run: FlowRun, request: JobRequest
) -> JobV2:
    """The job of a flow run. Another process of the same flow run may be making it just now."""
    if (job := await claim(session, flow_run)) is not None:
        return job
    if TAG in flow_run.tags and flow_run.auto_scheduled:
        request = await _request_now(engine, flow_run) or request
    try:
        return await make_job(session, request, flow_run)
    except DatasetBusyError:
        if (job := await claim(session, flow_run)) is None:
            raise
        return job


async def _request_now(engine: Engine, flow_run: FlowRun) -> JobRequest | None:
    """What a flow run that Prefect made ahead of time is to do, as its schedule says now.

    None if Prefect does not answer, or if the schedule has other times now. Then it is to do what
    the schedule said when the flow run was made.

    Raises:
        NotNowError: the schedule is paused.
    """
    try:
        deployment = await engine.deployment(flow_run.deployment_id)
    except EngineError:
        return None
    if deployment is None or deployment.paused:
        raise NotNowError("The schedule is paused.")
    parameters = parameters_now(flow_run, deployment)
    return None if parameters is None else JobRequest(**parameters)


async def claim(session: AsyncSession, flow_run: FlowRun) -> JobV2 | None:
    """The job of a flow run; None if the flow run has to make its own.

    If the flow run was made for a job that names no flow run yet, the job gets this one
    (committed).

    Raises:
        JobUnavailableError: the job is unknown, or belongs to another flow run.
    """
    job_id = job_id_of(flow_run)
    # In one statement: who made the flow run may be writing its id into the job at this moment.
    is_its_own = col(JobV2.flow_run_id) == flow_run.id
    found = await session.exec(
        select(JobV2)
        .where(or_(is_its_own, col(JobV2.id) == job_id))
        .order_by(is_its_own.desc().nulls_last())
        .limit(1)
    )
    job = found.first()
    if job is None and job_id is not None:
        raise JobUnavailableError(f"There is no job {job_id}.")
    if job is None or job.flow_run_id == flow_run.id:
        return job
    if job.flow_run_id is not None:
        raise JobUnavailableError(f"Job {job_id} is executed by flow run {job.flow_run_id}.")
    if job.status != "submitted":
        raise JobUnavailableError(f"Job {job_id} was stopped before it had a flow run.")
    job.flow_run_id = flow_run.id  # who made the flow run did not live to write it down
    await session.commit()
    return job


async def _entitle(engine: Engine, flow_run: FlowRun, job: JobV2, resource: Resource) -> None:
    try:
        await engine.entitle(flow_run, job, resource.name)
    except EngineError as error:
        get_run_logger().warning("The flow run keeps its name: %s", error)
