"""Prefect state hooks: what happens to a run in Prefect is written to the Fractal schema here.

Prefect logs a hook's exception and goes on. So the hooks of a workflow task leave a mark on it when
they have written, which the flow checks; a job whose last hook failed stays `submitted`.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun, State, TaskRun

from flows import history
from flows.history import Status
from flows.job_folder import JobFolder, write_archive
from flows.workflow_task_run import WorkflowTaskRun
from fractal_models.database import open_database
from fractal_models.settings import get_settings
from fractal_models.tables import JobV2

logger = logging.getLogger(__name__)


async def job_done(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """All workflow tasks are done."""
    await _end_job(flow_run, "done", "Job done.")


async def job_failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The flow raised an exception."""
    await _end_job(flow_run, "failed", f"Job failed. {state.message or ''}")


async def job_stopped(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Somebody cancelled the flow run."""
    await _end_job(flow_run, "failed", f"Job stopped. {state.message or ''}")


async def job_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The process of the flow run ended before the flow did."""
    await _end_job(flow_run, "failed", f"Job crashed. {state.message or ''}")


async def _end_job(flow_run: FlowRun, status: Status, message: str) -> None:
    """Write the job's end, then zip its folder (which nobody waits for)."""
    job_id = int(flow_run.parameters["job_id"])
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        job = await session.get(JobV2, job_id)
        if job is None or job.status != "submitted":
            return
        folder = JobFolder(Path(job.working_dir or ""))
        log = await asyncio.to_thread(_finish_log, folder, message.strip())
        await history.end_job(session, job_id, status=status, log=log)
    if folder.path.exists():
        await asyncio.to_thread(write_archive, folder.path, folder.archive_path)


def _finish_log(folder: JobFolder, message: str) -> str:
    """The job's whole log. A job whose folder cannot be written still gets its end."""
    try:
        folder.log(message)
        return folder.read_log()
    except OSError as error:
        logger.warning("%s could not be written: %s", folder.log_path, error)
        return f"{message}\n({folder.log_path} could not be written: {error})"


async def open_history_run(
    run: WorkflowTaskRun, task: Task[..., Any], task_run: TaskRun, state: State[Any]
) -> None:
    """A workflow task begins: its HistoryRun."""
    async with run.job.sessions() as session:
        run.history_run_id = await history.open_run(session, run.job.job, run.dump, len(run.inputs))


async def close_history_run(
    run: WorkflowTaskRun, task: Task[..., Any], task_run: TaskRun, state: State[Any]
) -> None:
    """A workflow task has ended: all that is recorded of it, in one transaction."""
    if run.history_run_id is None:
        return
    end = run.end("done" if state.is_completed() else "failed")
    async with run.job.sessions() as session:
        await history.close_run(session, run.job.job, run.history_run_id, run.dump, end)
    run.recorded = True
