"""The end of a job: its log, its summary, its archive."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records import jobs, runs
from flows.records.allocations import record_allocations
from flows.records.events import Outcome
from flows.records.usage import work_of_job
from flows.reports.artifacts import show_text
from flows.reports.sentences import sentence, words_of
from flows.reports.summary import EndedJob, Imports, Work, summary
from flows.reports.text import job_title, printable
from flows.units.job_folder import JobFolder, archive_folder, warnings_in
from flows.units.runners import Runner, runners_of
from fractal_models.database import release, saved_id
from fractal_models.tables import HistoryRun, JobV2
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)


async def conclude_job(
    session: AsyncSession, job: JobV2, outcome: Outcome, reason: str = ""
) -> None:
    """Record the end of a submitted job, with its whole log, and zip its folder."""
    if job.status != "submitted":
        return
    begun = await runs.runs_of_job(session, saved_id(job))
    await release(session)
    folder = JobFolder.of(job)
    reason = printable(reason.strip())
    first_line, _, _ = reason.partition("\n")
    message = f"Job {outcome}. {sentence(first_line)}".strip()
    story = await asyncio.to_thread(_finish_log, folder, message, begun=bool(begun))
    executor_log = await asyncio.to_thread(_read_executor_log, folder)
    runners = await asyncio.to_thread(runners_of, folder)
    await runs.abandon_runs(session, job)
    await record_allocations(session, saved_id(job), runners, _units_dirs(folder, begun))
    works = await work_of_job(session, saved_id(job))
    ended = await jobs.end_job(
        session,
        saved_id(job),
        outcome=outcome,
        reason=reason,
        story=story,
        executor_error_log=executor_log,
    )
    if not ended:
        return
    await _show_summary(job, works, message, warnings_in(story), _imports(runners))
    if folder.path.exists():
        await asyncio.to_thread(archive_folder, folder.path)


async def _show_summary(
    job: JobV2,
    works: Sequence[Work],
    message: str,
    warnings: Sequence[str],
    imports: Imports | None,
) -> None:
    if job.flow_run_id is None:
        return  # there is no place to show it
    ended = EndedJob(
        how=message,
        seconds=(now() - job.start_timestamp).total_seconds(),
        folder=job.working_dir,
        remote_folder=job.working_dir_user,
        warnings=warnings,
        imports=imports,
    )
    text = summary(ended, works)
    await show_text("summary", f"job-{job.id}-summary", job_title(job), text, job.flow_run_id)


def _units_dirs(folder: JobFolder, begun: Sequence[HistoryRun]) -> dict[str, int]:
    """The ids of a job's HistoryRuns by the names of their units' folders."""
    names: dict[str, int] = {}
    for run in begun:  # the oldest first; one that runs again after a retry has its own folder
        order, name = runs.order_of(run), run.workflowtask_dump["task"]["name"]
        again = (folder.units_dir(order, name, retry).name for retry in count())
        names[next(each for each in again if each not in names)] = saved_id(run)
    return names


def _imports(runners: Sequence[Runner]) -> Imports | None:
    """What imports took that were made once for many units; None if there were none."""
    found = [each.imports for each in runners if each.imports is not None and each.imports.units]
    if not found:
        return None
    return Imports(
        seconds=sum(each.seconds for each in found),
        times=len(found),
        saved_seconds=sum(each.seconds * (each.units - 1) for each in found),
    )


def _finish_log(folder: JobFolder, message: str, *, begun: bool) -> str:
    """Write the last line of the log, and return the log as a whole.

    A log that cannot be written does not prevent the job's end: its text then says why.
    """
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
