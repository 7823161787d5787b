"""What the job's log says about a workflow task, and the table of its failed units."""

import asyncio
import logging

from flows.job.workflow_task_run import WorkflowTaskRun
from flows.launchers.slurm.right_size import Measured, enough_for
from flows.records.units import log_path
from flows.reports import job_log
from flows.reports.artifacts import show_failures
from flows.reports.quantities import count, duration
from flows.units.left_files import last_lines
from flows.units.plan import CONVERTERS, PlannedUnit, meta_name
from fractal_models.tables.columns import now

_TOLD_FAILURES = 100
_TOLD_IMAGES = 5  # of a unit


def how_it_begins(run: WorkflowTaskRun) -> str:
    """How a workflow task begins: on which images, by which filters.

    After an interruption: with how many ended units it continues.
    """
    if run.recorded_units:
        ended = sum(unit.status != "submitted" for unit in run.recorded_units)
        units = count(len(run.recorded_units), "unit")
        return f"goes on after an interruption, with {ended} of {units} ended"
    if run.type in CONVERTERS:
        return "begins, on no images"
    filters = job_log.Filters(run.type_filters, run.job.attribute_filters, run.wanted_statuses)
    how = "runs again" if run.failed_runs else "begins"
    return f"{how}, on {job_log.chosen(len(run.inputs), run.num_images, filters)}"


def how_far(run: WorkflowTaskRun) -> str:
    """After how long the task ended, with how many done units, and how the image list changed."""
    seconds = (now() - run.began).total_seconds()
    units = f"{run.num_succeeded} of {count(run.num_units, 'unit')}"
    return f"after {duration(seconds)}, {units} done. {job_log.image_list(run.merged)}"


async def tell_failures(run: WorkflowTaskRun) -> str:
    """Log the reasons why units failed, and show a table of the failed units in Prefect.

    Returns the last lines of the first failed unit's log.
    """
    rows = await asyncio.to_thread(_rows_of_failures, run)
    await show_failures(f"{run.key}-failures", f"{run.title}: failed units", rows)
    told = [f"{run.title} failed {how_far(run)}", *job_log.reasons(_failed_units(run))]
    log_of_first = str(rows[0]["log"])
    if log_of_first:
        told.append(f"The log of the first ends with:\n{log_of_first}")
    run.job.say("\n".join(told), logging.ERROR)
    warn(run)
    return log_of_first


def warn(run: WorkflowTaskRun) -> None:
    """Log warnings about what is unusual in a workflow task that has ended."""
    warnings = job_log.failure_warnings(_failed_units(run), run.num_units)
    for phase in run.phases:
        name = meta_name(phase.plan.component)
        enough = enough_for(Measured(phase.peak_rss_kb, len(phase.outputs)))
        warnings += job_log.memory_warning(phase.asked_memory, phase.peak_rss_kb, enough, name)
    logs = [
        log_path(run.units_dir, unit)
        for phase in run.phases
        for unit in phase.units_that(sorted(phase.warned))
    ]
    warnings += job_log.log_warning(logs, run.num_units)
    for warning in warnings:
        run.job.say(f"{run.title}: {warning}", logging.WARNING)


def _failed_units(run: WorkflowTaskRun) -> list[job_log.FailedUnit]:
    return [
        job_log.FailedUnit(failure.reason, _images_of(phase.plan.units[index]))
        for phase, index, failure in run.failures
    ]


def _rows_of_failures(run: WorkflowTaskRun) -> list[dict[str, str | int]]:
    """The rows of the table of failed units, for the first 100 of them."""
    rows: list[dict[str, str | int]] = []
    for phase, index, failure in run.failures[:_TOLD_FAILURES]:
        unit = phase.plan.units[index]
        rows.append(
            {
                "images": _images_of(unit),
                "reason": failure.reason,
                "exit": failure.exit,
                "attempt": failure.attempt,
                "log": last_lines(log_path(run.units_dir, unit), below=run.job.folder.path),
            }
        )
    return rows


def _images_of(unit: PlannedUnit) -> str:
    told, more = unit.zarr_urls[:_TOLD_IMAGES], len(unit.zarr_urls) - _TOLD_IMAGES
    return ", ".join([*told, *([f"{more} more"] if more > 0 else [])]) or "no images"
