"""A job while it runs: its row, its images, its folder, and what stops it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job_folder import JobFolder
from flows.launchers.base import Launcher
from flows.launchers.local import LocalLauncher
from fractal_models.database import open_database
from fractal_models.images import Image
from fractal_models.settings import get_settings
from fractal_models.tables import DatasetV2, JobV2, ProjectV2, Resource

# In which the worker passes the runner configuration of a flow run to its process.
RUNNER_CONFIG_VARIABLE = "FRACTAL_RUNNER_CONFIG"


class JobUnavailableError(Exception):
    """There is no such job to run: it is unknown, or has ended."""


class JobStoppedError(Exception):
    """The job was told to stop."""


class JobRun:
    """One job on its way through its workflow tasks.

    `images` is the dataset's image list as last recorded; `type_filters` are the job's, joined by
    the output types of the tasks that are done.
    """

    def __init__(
        self,
        job: JobV2,
        dataset: DatasetV2,
        launcher: Launcher,
        parallel_tasks: int,
        sessions: async_sessionmaker[AsyncSession],
    ) -> None:
        self.job = job
        self.zarr_dir = dataset.zarr_dir
        self.images: list[Image] = dataset.images
        self.type_filters: dict[str, bool] = dict(job.type_filters)
        self.folder = JobFolder(Path(job.working_dir or ""))
        self.launcher = launcher
        self.parallel_tasks = parallel_tasks
        self.sessions = sessions
        self.stopping = False
        self._batch: Path | None = None
        self._stopping_batch: asyncio.Task[None] | None = None

    @property
    def workflow_tasks(self) -> list[dict[str, Any]]:
        """The tasks to run, as they were when the job was submitted."""
        tasks: list[dict[str, Any]] = self.job.workflow_dump["task_list"]
        return tasks

    def say(self, message: str) -> None:
        """One line in the job's log and in the Prefect log."""
        get_run_logger().info(message)
        self.folder.log(message)

    def stop(self) -> None:
        """Begin no more units, and end those that run."""
        self.stopping = True
        if self._batch is not None and self._stopping_batch is None:
            self._stopping_batch = asyncio.create_task(self.launcher.stop(self._batch))

    @asynccontextmanager
    async def batch(self, folder: Path) -> AsyncIterator[None]:
        """While the batch in this folder runs, `stop` ends it.

        Raises:
            JobStoppedError: the job was told to stop, before the batch or during it.
        """
        if self.stopping:
            raise JobStoppedError("The job was stopped.")
        self._batch = folder
        try:
            yield
        finally:
            self._batch = None
            if self._stopping_batch is not None:
                await self._stopping_batch


@asynccontextmanager
async def open_job(job_id: int) -> AsyncIterator[JobRun]:
    """Everything a job needs while it runs.

    Raises:
        JobUnavailableError: no such job, or it has ended.
    """
    async with open_database(get_settings().async_database_url) as sessions:
        async with sessions() as session:
            job = await session.get(JobV2, job_id)
            if job is None:
                raise JobUnavailableError(f"There is no job {job_id}.")
            if job.status != "submitted":
                raise JobUnavailableError(f"Job {job_id} has ended, it is {job.status}.")
            dataset = await session.get_one(DatasetV2, job.dataset_id)
            project = await session.get_one(ProjectV2, job.project_id)
            resource = await session.get_one(Resource, project.resource_id)
        run = JobRun(job, dataset, LocalLauncher(), _parallel_tasks(resource), sessions)
        run.folder.create()
        yield run


def _parallel_tasks(resource: Resource) -> int:
    """How many units run at once: as set for this flow run, else for the resource, else cores."""
    passed = os.environ.get(RUNNER_CONFIG_VARIABLE)
    config = json.loads(passed) if passed else resource.jobs_runner_config
    return config.get("parallel_tasks_per_job") or len(os.sched_getaffinity(0))
