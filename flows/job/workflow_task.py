"""The Prefect task that runs one workflow task: plan units, launch, collect, merge."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.job import hooks
from flows.job.phase import Phase
from flows.job.run import JobRun, JobStoppedError
from flows.job.workflow_task_log import how_far, how_it_begins, tell_failures, warn
from flows.job.workflow_task_run import WorkflowTaskRun
from flows.records import units as unit_records
from flows.reports import job_log
from flows.reports.artifacts import Progress
from flows.reports.quantities import count
from flows.reports.sentences import sentence, told, words_of
from flows.units.left_files import last_lines
from flows.units.plan import PlanError
from fractal_models.database import saved_id
from fractal_models.errors import FractalError
from fractal_models.images import (
    ImageListError,
    InitOutput,
    TaskOutput,
    parse_init_output,
    parse_task_output,
)


class WorkflowTaskFailedError(FractalError):
    """Units of a workflow task failed, or their outputs break the rules of image lists.

    The first line of the message says how many units failed, or which rule is broken. Then come the
    last lines of the log of the first failed unit.
    """


class WorkflowTaskRefusedError(FractalError):
    """The administrators have closed the resource, so no workflow task may begin."""


class NotRecordedError(FractalError):
    """The database did not accept what a state hook wrote."""


async def run_workflow_task(job: JobRun, workflow_task: dict[str, object]) -> None:
    """Run one workflow task of a job as a Prefect task, and update the dataset's image list.

    A task whose end is recorded does not run again; a task that was begun is continued.

    Raises:
        WorkflowTaskFailedError: units failed.
        JobStoppedError: the job was told to stop.
        WorkflowTaskRefusedError: the resource is closed for new work (`prevent_new_submissions`).
        NotRecordedError: the end of the workflow task is not in the database.
    """
    run = WorkflowTaskRun(job, workflow_task)
    await _take_up(run)
    if job.stopping and run.recorded_status in (None, "failed"):
        raise JobStoppedError(job.why_it_stops)
    if run.recorded_status == "failed":
        _raise_again(run)
    if run.recorded_status == "done":
        job.say(f"{run.title}: was done when the job was {run.job.how_it_ended_before}.")
    elif run.has_nothing_to_do:
        job.say(f"{run.title}: nothing to do, it is done with all images that it would see.")
    else:
        await _require_open(run)
        await _run(run)
    job.type_filters |= run.task["output_types"]


async def _require_open(run: WorkflowTaskRun) -> None:
    """Check, before a workflow task begins, that its resource is open and the flow run not paused.

    If the flow run is paused, this process ends. A task that was begun before an interruption
    continues in any case.

    Raises:
        WorkflowTaskRefusedError: the resource is closed.
    """
    if run.history_run_id is not None:
        return
    if await run.job.closed_for_new_tasks():
        raise WorkflowTaskRefusedError(
            f"{run.title} was not begun: the resource takes nothing new at present "
            "(prevent_new_submissions). Go on from this task when it does."
        )
    await run.job.leave_if_paused(run.title)


async def _take_up(run: WorkflowTaskRun) -> None:
    """Find what an earlier process recorded about a workflow task, and choose the task's images."""
    done_before: set[str] = set()
    async with run.job.database() as session:
        if run.failed_runs and run.type == "parallel":  # the units of others fail together
            done_before = await unit_records.images_done(session, run.failed_runs)
        if run.earlier is not None:
            run.history_run_id = saved_id(run.earlier)
            run.recorded_status = run.earlier.status
            run.recorded_units = await unit_records.units_of_run(session, run.history_run_id)
        await run.take_inputs(session, done_before)
        await run.take_measures(session)


async def _run(run: WorkflowTaskRun) -> None:
    recorded = execute.with_options(
        name=run.task["name"],
        task_run_name=run.title,
        on_running=[partial(hooks.open_history_run, run)],
        on_completion=[partial(hooks.close_history_run, run)],
        on_failure=[partial(hooks.close_history_run, run)],
    )
    await recorded(run)
    if run.why_it_failed is not None:
        raise run.why_it_failed
    if not run.recorded:
        raise NotRecordedError(f"{run.title}: its end could not be recorded. {_why(run)}")


def _why(run: WorkflowTaskRun) -> str:
    return "" if run.not_recorded is None else words_of(run.not_recorded)


@task(cache_policy=NO_CACHE, persist_result=False)
async def execute(run: WorkflowTaskRun) -> State[Any] | None:
    """Run the units of a workflow task, and merge their outputs into the image list.

    A failure is returned, not raised, so that Prefect logs it once and without a traceback. If it
    may be a fault of the platform, its traceback is in the worker's log.
    """
    try:
        await _execute(run)
    except (WorkflowTaskFailedError, JobStoppedError, PlanError) as why:
        run.why_it_failed = why
        return Failed(message=str(why))
    except ImageListError as why:
        run.why_it_failed = WorkflowTaskFailedError(f"{run.title}: {why}")
        return Failed(message=str(run.why_it_failed))
    except Exception as why:
        run.why_it_failed = why
        return Failed(message=told(why, f"{run.title} was broken off."))
    return None


async def _execute(run: WorkflowTaskRun) -> None:
    """Run the phases of a workflow task, one after the other."""
    if run.history_run_id is None:
        raise NotRecordedError(f"{run.title}: its start could not be recorded. {_why(run)}")
    plan = run.plan_first_phase()
    run.job.say(f"{run.title} {how_it_begins(run)}.")
    for problem in run.dump.get("argument_problems", []):
        run.job.say(f"{run.title}: {sentence(problem)}", logging.WARNING)
    progress = Progress(f"{run.key}-progress", run.title)
    with progress.shown():
        if run.is_compound:
            init = run.phase(plan, parse_init_output, progress)
            await _run_phase(run, init, progress)
            await _raise_for_failures(run)
            plan = run.plan_compute_phase(init.outputs[0])
        last_phase = run.phase(plan, parse_task_output, progress)
        try:
            await _run_phase(run, last_phase, progress)
        except Exception:  # what had ended before counts
            await run.merge(last_phase)
            run.job.say(f"{run.title} was broken off {how_far(run)}")
            raise
    await run.merge(last_phase)
    await _raise_for_failures(run)
    run.job.say(f"{run.title} ended {how_far(run)}")
    warn(run)


async def _run_phase(
    run: WorkflowTaskRun, phase: Phase[InitOutput] | Phase[TaskOutput], progress: Progress
) -> None:
    """Run the units of a phase. They are in the database before they run."""
    units = phase.plan.units
    if not units:
        return
    progress.expect(len(units))
    known = {unit.logfile: unit.id for unit in run.recorded_units}
    logfiles = [str(unit_records.log_path(run.units_dir, unit)) for unit in units]
    if logfiles[0] in known:
        ids = [known[logfile] for logfile in logfiles]
    else:
        async with run.job.database() as session:
            # The images of a compound task belong to its init unit.
            is_first = phase is run.phases[0]
            assert run.history_run_id is not None  # checked by the caller
            ids = await unit_records.create_units(
                session, run.history_run_id, units, logfiles, point_images=is_first
            )
    await phase.run(ids, run.retry(phase.plan.component))


async def _raise_for_failures(run: WorkflowTaskRun) -> None:
    if not run.failures:
        return
    log_of_first = await tell_failures(run)
    first = job_log.cause_of(run.failures[0][2].reason)
    failed = f"{len(run.failures)} of {count(run.num_units, 'unit')} failed"
    raise WorkflowTaskFailedError(
        f"{run.title}: {failed}, the first with: {first}.\n{log_of_first}".strip()
    )


def _raise_again(run: WorkflowTaskRun) -> None:
    """Fail with the recorded result: the job was interrupted after this task failed."""
    failed = [Path(unit.logfile) for unit in run.recorded_units if unit.status == "failed"]
    told = f"\n{last_lines(failed[0], below=run.job.folder.path)}" if failed else ""
    raise WorkflowTaskFailedError(
        f"{run.title}: failed before the job was interrupted, with {len(failed)} of "
        f"{len(run.recorded_units)} units.{told}"
    )
