"""Prefect state hooks: what happens to a run in Prefect is written to the Fractal schema here.

Prefect goes on after a hook's exception. So the hooks of a workflow task leave a mark on it when
they have written, which the flow checks; a job whose last hook failed stays `submitted`.
"""

import asyncio
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows import history
from flows.events.contents import Outcome
from flows.job_folder import JobFolder, archive_folder, warnings_in
from flows.last_words import printable
from flows.progress import show_summary
from flows.sentences import sentence, words_of
from flows.stopping import outcome_of_stop
from flows.submission import job_title
from flows.summary import EndedJob, summary
from flows.work import Work, work_of_job
from flows.workflow_task_run import WorkflowTaskRun
from fractal_models.database import open_database, release, saved_id
from fractal_models.settings import get_settings
from fractal_models.tables import JobV2
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)


async def job_done(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """All workflow tasks are done."""
    await _end_job(flow_run, "done")


async def job_failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The flow raised an exception."""
    await _end_job(flow_run, "failed", _exception_of(state))


async def job_stopped(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Somebody stopped the job, or cancelled its flow run."""
    await _end_job(flow_run, "stopped", state.message or "")


async def _end_job(flow_run: FlowRun, outcome: Outcome, reason: str = "") -> None:
    """Write the end of the flow run's job, then zip its folder (which nobody waits for)."""
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        found = await session.exec(select(JobV2).where(JobV2.flow_run_id == flow_run.id))
        if (job := found.first()) is None:
            return  # it was refused
        if outcome == "stopped":
            reason = job.stop_reason or reason
            outcome = outcome_of_stop(reason)
        await conclude_job(session, job, outcome, reason)


async def conclude_job(
    session: AsyncSession, job: JobV2, outcome: Outcome, reason: str = ""
) -> None:
    """Give a submitted job its end, with its whole log, and zip its folder."""
    if job.status != "submitted":
        return
    begun = bool(await history.runs_of_job(session, saved_id(job)))
    await release(session)
    folder = JobFolder.of(job)
    reason = printable(reason.strip())
    first_line, _, _ = reason.partition("\n")
    message = f"Job {outcome}. {sentence(first_line)}".strip()
    story = await asyncio.to_thread(_finish_log, folder, message, begun=begun)
    executor_log = await asyncio.to_thread(_read_executor_log, folder)
    await history.abandon_runs(session, job)
    works = await work_of_job(session, saved_id(job))
    ended = await history.end_job(
        session,
        saved_id(job),
        outcome=outcome,
        reason=reason,
        story=story,
        executor_error_log=executor_log,
    )
    if not ended:
        return
    await _show_summary(job, works, message, warnings_in(story))
    if folder.path.exists():
        await asyncio.to_thread(archive_folder, folder.path)


async def _show_summary(
    job: JobV2, works: Sequence[Work], message: str, warnings: Sequence[str]
) -> None:
    if job.flow_run_id is None:
        return  # there is no place to show it
    ended = EndedJob(
        how=message,
        seconds=(now() - job.start_timestamp).total_seconds(),
        folder=job.working_dir,
        remote_folder=job.working_dir_user,
        warnings=warnings,
    )
    text = summary(ended, works)
    await show_summary(f"job-{job.id}-summary", job_title(job), text, job.flow_run_id)


def _finish_log(folder: JobFolder, message: str, *, begun: bool) -> str:
    """What was logged, and a last line. A job whose folder cannot be written gets its end, too."""
    if not folder.path.exists():
        return f"{message}\n(Its folder {folder.path} was removed.)" if begun else message
    try:
        folder.log(message)
        return printable(folder.read_log())
    except OSError as error:
        logger.warning("The end of a log could not be written: %s", error)
        with suppress(OSError):
            message = f"{printable(folder.read_log())}{message}"
        return f"{message}\n(The end of this log could not be written: {words_of(error)})"


def _read_executor_log(folder: JobFolder) -> str | None:
    with suppress(OSError):
        return printable(folder.read_executor_log()) or None
    return None


async def open_history_run(
    run: WorkflowTaskRun, task: Task[..., Any], task_run: TaskRun, state: State[Any]
) -> None:
    """A workflow task begins: its HistoryRun."""
    if run.history_run_id is not None:
        return  # before an interruption
    with _kept(run):
        async with run.job.database() as session:
            run.history_run_id = await history.open_run(
                session, run.job.job, run.dump, run.num_available_images
            )


async def close_history_run(
    run: WorkflowTaskRun, task: Task[..., Any], task_run: TaskRun, state: State[Any]
) -> None:
    """A workflow task has ended: all that is recorded of it, in one transaction."""
    if run.history_run_id is None:
        return
    done = state.is_completed()
    end = run.end("done" if done else "failed", "" if done else _exception_of(state))
    with _kept(run):
        async with run.job.database() as session:
            await history.close_run(session, run.job.job, run.history_run_id, run.dump, end)
        run.recorded = True


def _exception_of(state: State[Any]) -> str:
    """What a run failed with, in its own words."""
    message = state.message or ""
    return re.sub(r"^(Flow|Task) run encountered an exception:? ", "", message)


@contextmanager
def _kept(run: WorkflowTaskRun) -> Iterator[None]:
    """Let the flow, which never sees a hook's exception, say what the database refused."""
    try:
        yield
    except Exception as error:
        logger.exception("%s could not be recorded.", run.title)
        run.not_recorded = error
