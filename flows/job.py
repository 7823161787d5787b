"""The flow `run-job`: a job, from its first workflow task to its last."""

import signal
from typing import Any
from uuid import UUID

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows import hooks
from flows.job_run import JobEndedError, JobStoppedError, JobUnavailableError, open_job
from flows.stopping import STOP_SIGNAL, on_signals
from flows.units import PlanError
from flows.workflow_task import (
    ResourceClosedError,
    WorkflowTaskFailedError,
    run_workflow_task,
)


@flow(
    name="run-job",
    description="Runs the workflow tasks of a Fractal job on the images of its dataset.",
    on_completion=[hooks.job_done],
    on_failure=[hooks.job_failed],
    on_cancellation=[hooks.job_stopped],
    persist_result=False,
)
async def run_job(job_id: int) -> State[Any] | None:
    """Run a submitted job, or go on with it where an executor before this one left it.

    Each workflow task is recorded before the next begins, and is not run again. The stop signal
    ends the units that run; what they did is recorded, and the flow run ends as Cancelled. SIGTERM
    leaves the job as it is, to be taken up again.

    Args:
        job_id: the id of a JobV2 with status `submitted`.
    """
    try:
        async with open_job(job_id, UUID(runtime.flow_run.id)) as job:
            with on_signals({STOP_SIGNAL: job.stop, signal.SIGTERM: job.terminate}):
                job.say(f"Job {job_id} {job.how_it_begins}, in {job.folder.path}.")
                for workflow_task in job.workflow_tasks:
                    await run_workflow_task(job, workflow_task)
    except JobEndedError as ended:
        state = Completed if ended.status == "done" else Failed
        return state(message=str(ended))
    except (JobStoppedError, JobUnavailableError) as reason:
        return Cancelled(message=str(reason))
    except (WorkflowTaskFailedError, ResourceClosedError, PlanError) as reason:
        return Failed(message=str(reason))  # which needs no traceback in the Prefect log
    return None
