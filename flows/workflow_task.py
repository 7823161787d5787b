"""The Prefect task that runs one workflow task: plan units, launch, collect, merge."""

import asyncio
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import history, hooks
from flows.job_run import JobRun
from flows.phase import Phase, last_log_lines
from flows.progress import Progress, show_failures
from flows.units import UnitPlan
from flows.workflow_task_run import WorkflowTaskRun
from fractal_models.images import InitOutput, parse_init_output, parse_task_output


class WorkflowTaskFailedError(Exception):
    """Units of a workflow task failed; the message says how many and names the first."""


class NotRecordedError(Exception):
    """The database did not take what a state hook had to write."""


async def run_workflow_task(job: JobRun, workflow_task: dict[str, object]) -> None:
    """Run one workflow task of a job as a Prefect task, and take over its image list.

    Raises:
        WorkflowTaskFailedError: units failed.
        JobStoppedError: the job was told to stop.
        NotRecordedError: the end of the workflow task is not in the database.
    """
    run = WorkflowTaskRun(job, workflow_task)
    recorded = execute.with_options(
        name=run.task["name"],
        task_run_name=run.title,
        on_running=[partial(hooks.open_history_run, run)],
        on_completion=[partial(hooks.close_history_run, run)],
        on_failure=[partial(hooks.close_history_run, run)],
    )
    await recorded(run)
    if not run.recorded:
        raise NotRecordedError(f"The end of workflow task {run.title!r} could not be recorded.")
    if run.merged is not None:
        job.images = run.merged.images
    job.type_filters |= run.task["output_types"]


@task(cache_policy=NO_CACHE, persist_result=False)
async def execute(run: WorkflowTaskRun) -> None:
    """The units of a workflow task, and what they make of the image list."""
    if run.history_run_id is None:
        raise NotRecordedError(f"The start of workflow task {run.title!r} could not be recorded.")
    plan = run.plan_first_phase()
    run.job.say(f"{run.title}: begins, {len(run.inputs)} images, type filters {run.type_filters}.")
    progress = Progress(f"{run.key}-progress", run.title)
    if run.is_compound:
        plan = await _init(run, plan, progress)
    last_phase = Phase(
        run.job, run.history_run_id, plan, run.units_dir, parse_task_output, progress
    )
    run.phases.append(last_phase)
    await progress.expect(len(plan.units))
    await last_phase.run(point_images=not run.is_compound)
    run.merged = await asyncio.to_thread(run.merge, last_phase)
    await _raise_for_failures(run)
    run.job.say(f"{run.title}: done, {run.num_units} units.{_describe_merge(run)}")


async def _init(run: WorkflowTaskRun, plan: UnitPlan, progress: Progress) -> UnitPlan:
    """Run the init phase of a compound task; the plan of its second phase."""
    assert run.history_run_id is not None  # checked by the caller
    init: Phase[InitOutput] = Phase(
        run.job, run.history_run_id, plan, run.units_dir, parse_init_output, progress
    )
    run.phases.append(init)
    await progress.expect(len(plan.units))
    await init.run(point_images=True)
    await _raise_for_failures(run)
    return run.plan_compute_phase(init.outputs[0])


async def _raise_for_failures(run: WorkflowTaskRun) -> None:
    if not run.failures:
        return
    rows = []
    for phase, index, reason in run.failures[:100]:
        unit = phase.plan.units[index]
        path = history.log_path(run.units_dir, unit)
        images = ", ".join(unit.zarr_urls[:5]) or "(no images)"
        rows.append({"images": images, "reason": reason, "log": await last_log_lines(path)})
    await show_failures(f"{run.key}-failures", f"{run.title}: failed units", rows)
    raise WorkflowTaskFailedError(
        f"{run.title}: {len(run.failures)} of {run.num_units} units failed. "
        f"The first: {rows[0]['reason']}, on {rows[0]['images']}.\n{rows[0]['log']}".rstrip()
    )


def _describe_merge(run: WorkflowTaskRun) -> str:
    merged = run.merged
    if merged is None:
        return ""
    counts = {
        "new": len(merged.added),
        "updated": len(merged.updated),
        "removed": len(merged.removed),
    }
    return " Images: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n) + "."
