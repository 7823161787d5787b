"""Gathers what the report of a job shows."""

import asyncio
from pathlib import Path

from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job_report.page import JobFacts, page
from flows.records.report import allocations_of, reported_runs
from flows.units.job_files import ends_of_logs
from fractal_models.database import release, saved_id
from fractal_models.tables import JobV2
from fractal_models.tables.columns import now

_LINES = 20  # of a failed unit's log


async def report_of(session: AsyncSession, job: JobV2) -> str:
    """The report as HTML, also of a job that runs; what is not there any more is left out."""
    runs = await reported_runs(session, saved_id(job))
    allocations = await allocations_of(session, saved_id(job))
    await release(session)
    logs: dict[str, str] = {}
    if job.working_dir is not None:
        paths = [Path(unit.logfile) for run in runs for unit in run.failed if unit.logfile]
        ends = await ends_of_logs(paths, Path(job.working_dir), _LINES)
        logs = {str(path): end for path, end in ends.items()}
    facts = JobFacts(job, job.end_timestamp or now(), runs, allocations, logs)
    return await asyncio.to_thread(page, facts)
