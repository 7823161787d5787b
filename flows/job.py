"""The flow `run-job`: a job, from its first workflow task to its last."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from flows import hooks
from flows.job_run import JobStoppedError, open_job
from flows.stopping import stopped_by_signal
from flows.workflow_task import run_workflow_task


@flow(
    name="run-job",
    description="Runs the workflow tasks of a Fractal job on the images of its dataset.",
    on_completion=[hooks.job_done],
    on_failure=[hooks.job_failed],
    on_cancellation=[hooks.job_stopped],
    on_crashed=[hooks.job_crashed],
    persist_result=False,
)
async def run_job(job_id: int) -> State[Any] | None:
    """Run a submitted job.

    Each workflow task is recorded before the next begins. A stop signal ends the units that run;
    what they did is recorded, and the flow run ends as Cancelled.

    Args:
        job_id: the id of a JobV2 with status `submitted`.
    """
    async with open_job(job_id) as job:
        with stopped_by_signal(job.stop):
            job.say(f"Job {job_id} begins, in {job.folder.path}.")
            try:
                for workflow_task in job.workflow_tasks:
                    await run_workflow_task(job, workflow_task)
            except JobStoppedError as stopped:
                return Cancelled(message=str(stopped))
    return None
