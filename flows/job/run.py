"""A job while it runs: its row and folder, and how it is stopped or interrupted."""

import asyncio
import atexit
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from prefect.logging import get_run_logger
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, EngineError
from flows.launchers.choice import launcher_of, units_at_once
from flows.process.signals import EXIT_INTERRUPTED, EXIT_PAUSED, leave
from flows.records import jobs
from flows.reports.sentences import phrase, words_of
from flows.units.job_folder import MOST_OF_A_LOG, JobFolder
from flows.units.left_files import open_left, two_ends
from fractal_models.database import is_outage, saved_id
from fractal_models.errors import FractalError
from fractal_models.image_search import NOT_DONE
from fractal_models.images import STATUS_ATTRIBUTE, Scalar
from fractal_models.schemas.slurm import JobRunnerConfigSLURM
from fractal_models.settings import get_settings
from fractal_models.tables import (
    HistoryRun,
    JobV2,
    Profile,
    Resource,
)

# The worker passes the runner configuration of a flow run to its process in this variable.
RUNNER_CONFIG_VARIABLE = "FRACTAL_RUNNER_CONFIG"

_LAST_WORDS_SECONDS = 5
_OBEY_SECONDS = 2.0
_JUST_BEGUN_SECONDS = 1.0


class JobUnavailableError(FractalError):
    """This flow run has no job to run: it is unknown, has ended, or is another flow run's."""


class JobEndedError(JobUnavailableError):
    """The job is done already: its flow run was started again although nothing is left to do."""


class JobStoppedError(FractalError):
    """The job was told to stop."""


class JobRun:
    """One job while it passes through its workflow tasks.

    `type_filters` are those of the job plus the output types of the tasks that are done. `recorded`
    are the HistoryRuns that earlier processes of the job wrote, oldest first.
    """

    def __init__(
        self,
        job: JobV2,
        zarr_dir: str,
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
        self.recorded = recorded
        self.type_filters: dict[str, bool] = dict(job.type_filters)
        self.attribute_filters: dict[str, Sequence[Scalar]] = dict(job.attribute_filters)
        self._statuses: Sequence[Scalar] | None = self.attribute_filters.pop(STATUS_ATTRIBUTE, None)
        self.folder = JobFolder.of(job)
        config = runner_config(resource)
        self.launcher = launcher_of(
            job, resource, profile, config, on_submitted=self._account_slurm, say=self.say
        )
        self.parallel_tasks = units_at_once(config)
        is_local = resource.type == "local"
        self.slurm = None if is_local else JobRunnerConfigSLURM.model_validate(config)
        off = "off" in (get_settings().warm_units, config.get("warm_units"))
        self.allows_warm_units = not off
        self.resource_id = saved_id(resource)
        self.max_restarts = max_restarts
        self.waited = ""
        self.why_it_stops = ""
        self._stopped = asyncio.Event()
        self._sessions = sessions
        self._engine = engine
        self.flow_run_id = flow_run_id
        self._began: float | None = time.monotonic()  # until the first workflow task begins
        self._batch: Path | None = None
        self._stopping_batch: asyncio.Task[None] | None = None

    @property
    def id(self) -> int:
        return saved_id(self.job)

    @property
    def stopping(self) -> bool:
        return self._stopped.is_set()

    @property
    def variables_of_units(self) -> dict[str, str] | None:
        """What units see beside the environment that they run in; authors of tasks rely on it."""
        folder = self.job.cache_dir
        return None if folder is None else {"FRACTAL_CACHE_DIR": folder}

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
        """The image statuses that the task at this position accepts; None means any.

        The status of an image is that of the task's latest unit on it. A filter by status applies
        only to the first task, as clients know it.
        """
        if self.job.only_not_done:
            return NOT_DONE
        return self._statuses if order == self.workflow_tasks[0]["order"] else None

    def say(self, message: str, level: int = logging.INFO) -> None:
        """Write a line to the job's log and to Prefect's; warnings also get into the summary."""
        get_run_logger().log(level, message)
        self.folder.log(message, is_warning=level == logging.WARNING)

    def note_executor_errors(self, messages: set[str]) -> None:
        """Append to a file what a cluster says about units that it ended; each message once."""
        path = self.folder.executor_log_path
        if not messages:
            return
        with open_left(path, "ab", below=self.folder.path) as file:
            known = two_ends(file, MOST_OF_A_LOG, str(path)).decode(errors="replace")
            new = sorted(message for message in messages if message not in known)
            file.write("".join(f"{message}\n" for message in new).encode())

    @asynccontextmanager
    async def database(self) -> AsyncIterator[AsyncSession]:
        """A session. If the database goes away during the block, the job is interrupted."""
        try:
            async with self._sessions() as session:
                yield session
        except Exception as error:
            if is_outage(error):
                interrupt(self.folder, f"the database is away ({phrase(words_of(error))})")
            raise

    def session_aside(self) -> AsyncSession:
        """A session for what the job does not depend on: if that fails, the job goes on."""
        return self._sessions()

    def terminate(self) -> None:
        """End this process, because the worker ends; another process will continue the job."""
        self.folder.log("Interrupted: the worker ends. Units that run go on.")
        _leave_with_last_words(EXIT_INTERRUPTED)

    async def leave_if_paused(self, before: str) -> None:
        """End this process if the flow run is paused; it is started again when the run is resumed.

        `before` is the title of the workflow task that would begin next.
        """
        began, self._began = self._began, None
        if began is not None and time.monotonic() - began < _JUST_BEGUN_SECONDS:
            return  # Prefect has just let it begin
        try:
            flow_run = (await self._engine.flow_runs([self.flow_run_id])).get(self.flow_run_id)
        except EngineError:
            return  # it cannot be paused then either
        if flow_run is not None and flow_run.state is not None and flow_run.state.is_paused():
            self.say(f"Paused before {before}: no process is held. Resume the run to go on.")
            _leave_with_last_words(EXIT_PAUSED)

    def stop(self, why: str = "The job was stopped.") -> None:
        """Begin no more units, and end those that are running."""
        self.why_it_stops = self.why_it_stops or why
        self._stopped.set()
        if self._batch is not None and self._stopping_batch is None:
            self._stopping_batch = asyncio.create_task(self.launcher.stop(self._batch))

    async def closed_for_new_tasks(self) -> bool:
        """Whether administrators have closed the resource, so that no workflow task may begin."""
        async with self.database() as session:
            resource = await session.get_one(Resource, self.resource_id)
            return resource.prevent_new_submissions

    async def _account_slurm(self, slurm_job_id: int) -> None:
        async with self.database() as session:
            await jobs.account_slurm(session, self.id, self.resource_id, slurm_job_id)

    async def pause(self, seconds: float) -> None:
        """Wait this long, or until the job is told to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    @asynccontextmanager
    async def batch(self, folder: Path) -> AsyncIterator[None]:
        """While this block runs, `stop` also ends the batch in this folder."""
        self._batch = folder
        try:
            yield
        finally:
            self._batch = None
            if self._stopping_batch is not None:
                await self._stopping_batch

    async def obey(self) -> None:
        """Ask the database regularly whether the job must stop, until it must."""
        while not self.stopping:
            async with self.database() as session:
                why = await jobs.stop_reason(session, self.id)
            if why is not None:
                self.stop(why)
            await asyncio.sleep(_OBEY_SECONDS)


def _leave_with_last_words(exit_code: int) -> NoReturn:
    """End this process once Prefect has sent its last logs and events, at the latest in 5 s."""
    signal.alarm(_LAST_WORDS_SECONDS)
    atexit._run_exitfuncs()
    leave(exit_code)


def interrupt(folder: JobFolder, reason: str) -> NoReturn:
    """End this process as a crash would; the flow run, when started again, continues the job."""
    with suppress(OSError):  # not a reason to stay
        why = phrase(reason)
        folder.log(f"Interrupted: {why}. Units that run go on; the job will be taken up again.")
    leave(EXIT_INTERRUPTED)


def runner_config(resource: Resource) -> dict[str, Any]:
    """How batches are run: the configuration of this flow run, or else that of the resource."""
    passed = os.environ.get(RUNNER_CONFIG_VARIABLE)
    config: dict[str, Any] = json.loads(passed) if passed else resource.jobs_runner_config
    return config
