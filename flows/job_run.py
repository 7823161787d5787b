"""A job while it runs: its row, its images, its folder, and what stops or interrupts it."""

import asyncio
import atexit
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.context import AsyncClientContext
from prefect.logging import get_run_logger
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows import history
from flows.engine import Engine, EngineError, job_id_of
from flows.job_folder import MOST_OF_A_LOG, JobFolder
from flows.job_lock import LockedError, lock_job
from flows.job_request import JobRequest, make_job
from flows.launchers.of_job import launcher_of
from flows.left_files import open_left, two_ends
from flows.schedules.occurrences import TAG
from flows.sentences import phrase, words_of
from flows.stopping import EXIT_INTERRUPTED, EXIT_PAUSED, EXIT_SUPERFLUOUS, leave
from flows.submission import reopen_job
from flows.waiting import describe_wait
from fractal_models.database import is_outage, open_database, release, saved_id
from fractal_models.errors import DatasetBusyError, FractalError, NotNowError
from fractal_models.image_list import read_images
from fractal_models.images import STATUS_ATTRIBUTE, Image, Scalar
from fractal_models.settings import Settings, get_settings
from fractal_models.tables import (
    DatasetV2,
    HistoryRun,
    JobV2,
    Profile,
    ProjectV2,
    Resource,
    UserOAuth,
)
from fractal_models.tables.columns import now

# In which the worker passes the runner configuration of a flow run to its process.
RUNNER_CONFIG_VARIABLE = "FRACTAL_RUNNER_CONFIG"

_NOT_DONE = ("unset", "submitted", "failed")

_LAST_WORDS_SECONDS = 5
_OBEY_SECONDS = 2.0


class JobUnavailableError(FractalError):
    """This flow run has no job to run: it is unknown, has ended, or is another flow run's."""


class JobEndedError(JobUnavailableError):
    """The job is done already: this flow run was executed once more, for nothing."""


class JobStoppedError(FractalError):
    """The job was told to stop."""


class JobRun:
    """One job on its way through its workflow tasks.

    `images` is the dataset's image list as last recorded; `type_filters` are the job's, joined by
    the output types of the tasks that are done; `recorded` are the HistoryRuns that executors
    before this one left, the oldest first.
    """

    def __init__(
        self,
        job: JobV2,
        zarr_dir: str,
        images: list[Image],
        recorded: Sequence[HistoryRun],
        resource: Resource,
        profile: Profile | None,
        max_restarts: int,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        flow_run_id: UUID,
    ) -> None:
        self.job = job
        self.zarr_dir = zarr_dir
        self.images = images
        self.recorded = recorded
        self.type_filters: dict[str, bool] = dict(job.type_filters)
        self.attribute_filters: dict[str, Sequence[Scalar]] = dict(job.attribute_filters)
        self._statuses: Sequence[Scalar] | None = self.attribute_filters.pop(STATUS_ATTRIBUTE, None)
        self.folder = JobFolder.of(job)
        config = _runner_config(resource)
        self.launcher = launcher_of(
            job, resource, profile, config, on_submitted=self._account_slurm, say=self.say
        )
        self.parallel_tasks = config.get("parallel_tasks_per_job") or len(os.sched_getaffinity(0))
        self._resource_id = saved_id(resource)
        self.max_restarts = max_restarts
        self.waited = ""
        self.why_it_stops = ""
        self._stopped = asyncio.Event()
        self._sessions = sessions
        self._engine = engine
        self._flow_run_id = flow_run_id
        self._batch: Path | None = None
        self._stopping_batch: asyncio.Task[None] | None = None

    @property
    def id(self) -> int:
        return saved_id(self.job)

    @property
    def stopping(self) -> bool:
        return self._stopped.is_set()

    @property
    def workflow_tasks(self) -> list[dict[str, Any]]:
        """The tasks to run, as they were when the job was submitted."""
        tasks: list[dict[str, Any]] = self.job.workflow_dump["task_list"]
        return tasks

    @property
    def how_it_begins(self) -> str:
        return "goes on" if self.recorded else "begins"

    @property
    def how_it_ended_before(self) -> str:
        return "interrupted" if self.job.retried_after is None else "interrupted, or had failed"

    def wanted_statuses(self, order: int) -> Sequence[Scalar] | None:
        """Of the images of the task at this place, how its latest unit on them ended; or any.

        A filter by status is for the first task alone, as clients know it.
        """
        if self.job.only_not_done:
            return _NOT_DONE
        return self._statuses if order == self.workflow_tasks[0]["order"] else None

    def say(self, message: str, level: int = logging.INFO) -> None:
        """One line in the job's log and in the Prefect log; the job's summary has warnings too."""
        get_run_logger().log(level, message)
        self.folder.log(message, is_warning=level == logging.WARNING)

    def note_executor_errors(self, messages: set[str]) -> None:
        """Keep what a cluster says of units that it ended, each thing once."""
        path = self.folder.executor_log_path
        if not messages:
            return
        with open_left(path, "ab", below=self.folder.path) as file:
            known = two_ends(file, MOST_OF_A_LOG, str(path)).decode(errors="replace")
            new = sorted(message for message in messages if message not in known)
            file.write("".join(f"{message}\n" for message in new).encode())

    @asynccontextmanager
    async def database(self) -> AsyncIterator[AsyncSession]:
        """A session. If the database goes away meanwhile, the job is interrupted."""
        try:
            async with self._sessions() as session:
                yield session
        except Exception as error:
            if is_outage(error):
                interrupt(self.folder, f"the database is away ({phrase(words_of(error))})")
            raise

    def terminate(self) -> None:
        """The worker ends, or its machine: another one will take the job up."""
        self.folder.log("Interrupted: the worker ends. Units that run go on.")
        _leave_with_last_words(EXIT_INTERRUPTED)

    async def leave_if_paused(self, before: str) -> None:
        """End this process if the flow run is paused; resumed, it is executed again."""
        try:
            flow_run = (await self._engine.flow_runs([self._flow_run_id])).get(self._flow_run_id)
        except EngineError:
            return  # it cannot be paused then either
        if flow_run is not None and flow_run.state is not None and flow_run.state.is_paused():
            self.say(f"Paused before {before}: no process is held. Resume the run to go on.")
            _leave_with_last_words(EXIT_PAUSED)

    def stop(self, why: str = "The job was stopped.") -> None:
        """Begin no more units, and end those that run."""
        self.why_it_stops = self.why_it_stops or why
        self._stopped.set()
        if self._batch is not None and self._stopping_batch is None:
            self._stopping_batch = asyncio.create_task(self.launcher.stop(self._batch))

    async def closed_for_new_tasks(self) -> bool:
        """Whether the administrators let no workflow task begin on the resource any more."""
        async with self.database() as session:
            resource = await session.get_one(Resource, self._resource_id)
            return resource.prevent_new_submissions

    async def _account_slurm(self, slurm_job_id: int) -> None:
        async with self.database() as session:
            await history.account_slurm(session, self.id, self._resource_id, slurm_job_id)

    async def pause(self, seconds: float) -> None:
        """Wait, unless the job is told to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    @asynccontextmanager
    async def batch(self, folder: Path) -> AsyncIterator[None]:
        """While the batch in this folder runs, `stop` ends it."""
        self._batch = folder
        try:
            yield
        finally:
            self._batch = None
            if self._stopping_batch is not None:
                await self._stopping_batch

    async def obey(self) -> None:
        """Ask the database, now and then, whether the job is to stop."""
        while not self.stopping:
            async with self.database() as session:
                why = await history.stop_reason(session, self.id)
            if why is not None:
                self.stop(why)
            await asyncio.sleep(_OBEY_SECONDS)


def _leave_with_last_words(exit_code: int) -> NoReturn:
    """End this process when Prefect has sent its last logs and events, or soon."""
    signal.alarm(_LAST_WORDS_SECONDS)
    atexit._run_exitfuncs()
    leave(exit_code)


def interrupt(folder: JobFolder, reason: str) -> NoReturn:
    """Leave a job where it is, as a crash would; the flow run, run again, goes on from there."""
    with suppress(OSError):  # not a reason to stay
        why = phrase(reason)
        folder.log(f"Interrupted: {why}. Units that run go on; the job will be taken up again.")
    leave(EXIT_INTERRUPTED)


@asynccontextmanager
async def open_job(flow_run: FlowRun, request: JobRequest) -> AsyncIterator[JobRun]:
    """Everything that this process needs to execute a job, of which it is the only executor.

    A flow run without a job makes it, as requested; one whose job has failed has it go on.
    Ends the process, and touches nothing, if another one executes the job for the same flow run, or
    if the database is away.

    Raises:
        JobUnavailableError: there is nothing to execute for this flow run.
        JobRefusedError, NotFoundError, ForbiddenError: the job cannot be made, or go on.
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
        await session.refresh(job)  # who had the lock may have ended it
        if job.status == "done":
            raise JobEndedError(f"Job {job_id} has ended already, it is done.")
        if job.status == "failed":
            await reopen_job(session, job)
        if waited := describe_wait(job.log, now()):
            job.log = None
            await session.commit()
        dataset = await session.get_one(DatasetV2, job.dataset_id)
        images = await read_images(session, dataset.id)
        project = await session.get_one(ProjectV2, job.project_id)
        resource = await session.get_one(Resource, project.resource_id)
        profile = await profile_of(session, job)
        recorded = await history.runs_of_job(session, job_id)
    if job_id_of(flow_run) is None:
        await _entitle(engine, flow_run, job, resource)
    run = JobRun(
        job,
        dataset.zarr_dir,
        images,
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
    """The job of a flow run. Another process of it may just be making it."""
    if (job := await _claim(session, flow_run)) is not None:
        return job
    if TAG in flow_run.tags and flow_run.auto_scheduled:
        await _require_active(engine, flow_run)
    try:
        return await make_job(session, request, flow_run)
    except DatasetBusyError:
        if (job := await _claim(session, flow_run)) is None:
            raise
        return job


async def _require_active(engine: Engine, flow_run: FlowRun) -> None:
    """Begin nothing for a schedule that is paused. (Flow runs were made ahead of that.)"""
    try:
        paused = flow_run.deployment_id is None or await engine.is_paused(flow_run.deployment_id)
    except EngineError:
        return  # it was active when this began
    if paused:
        raise NotNowError("The schedule is paused.")


async def _claim(session: AsyncSession, flow_run: FlowRun) -> JobV2 | None:
    """The job of a flow run, if it has one; made for a job, it becomes the flow run of that."""
    found = await session.exec(select(JobV2).where(JobV2.flow_run_id == flow_run.id))
    job = found.first()
    job_id = job_id_of(flow_run)
    if job is not None or job_id is None:
        return job
    job = await session.get(JobV2, job_id)
    if job is None:
        raise JobUnavailableError(f"There is no job {job_id}.")
    if job.flow_run_id is not None:
        raise JobUnavailableError(f"Job {job_id} is executed by flow run {job.flow_run_id}.")
    job.flow_run_id = flow_run.id  # who made the flow run did not live to write it down
    await session.commit()
    return job


async def _entitle(engine: Engine, flow_run: FlowRun, job: JobV2, resource: Resource) -> None:
    try:
        await engine.entitle(flow_run, job, resource.name)
    except EngineError as error:
        get_run_logger().warning("The flow run keeps its name: %s", error)


async def profile_of(session: AsyncSession, job: JobV2) -> Profile | None:
    """The profile of the user who submitted a job."""
    found = await session.exec(
        select(Profile)
        .join(UserOAuth, col(UserOAuth.profile_id) == col(Profile.id))
        .where(UserOAuth.email == job.user_email)
    )
    return found.first()


def _runner_config(resource: Resource) -> dict[str, Any]:
    """How batches are run: as set for this flow run, else for the resource."""
    passed = os.environ.get(RUNNER_CONFIG_VARIABLE)
    config: dict[str, Any] = json.loads(passed) if passed else resource.jobs_runner_config
    return config
