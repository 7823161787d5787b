"""The flow `run-job`: a job, from its first workflow task to its last."""

import signal
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed
from pydantic import NonNegativeInt

from flows.engine.descriptions import DESCRIPTIONS
from flows.engine.results import WITHOUT_RESULTS
from flows.job import hooks
from flows.job.opening import open_job
from flows.job.plan import plan_shown
from flows.job.run import JobEndedError, JobStoppedError, JobUnavailableError
from flows.job.workflow_task import (
    WorkflowTaskFailedError,
    WorkflowTaskRefusedError,
    run_workflow_task,
)
from flows.parameters import JobRequest
from flows.process.signals import STOP_SIGNAL, on_signals
from flows.reports.sentences import told
from flows.schedules import rows
from flows.schedules.occurrences import SKIPPED, begins_by_itself
from flows.units.plan import PlanError
from fractal_models.database import open_database
from fractal_models.errors import ForbiddenError, JobRefusedError, NotFoundError, NotNowError
from fractal_models.images import AttributeFilters, TypeFilters
from fractal_models.schemas.job import Images
from fractal_models.settings import get_settings


@flow(
    name="run-job",
    description=DESCRIPTIONS["run-job"],
    on_completion=[hooks.job_done],
    on_failure=[hooks.job_failed],
    on_cancellation=[hooks.job_stopped],
    **WITHOUT_RESULTS,
)
async def run_job(
    user: str,
    project: str,
    workflow: str,
    dataset: str,
    first_task: NonNegativeInt | None = None,
    last_task: NonNegativeInt | None = None,
    images: Images = "all",
    attribute_filters: AttributeFilters = {},  # noqa: B006
    type_filters: TypeFilters = {},  # noqa: B006
    slurm_account: str | None = None,
    worker_init: str | None = None,
) -> State[Any] | None:
    """Run the job of this flow run, or continue it where an earlier process left it.

    A flow run that begins in Prefect first makes its job, with the checks of the REST API. If the
    job was submitted before, the parameters only describe it. The end of each workflow task is
    recorded before the next one begins, and a recorded task does not run again. On the stop signal
    the running units end, what they did is recorded, and the flow run ends as Cancelled. On SIGTERM
    the job stays as it is, and another process continues it. When Prefect retries the flow run of a
    failed or stopped job, the job continues.

    Args:
        user: Email of the user who runs the job, with whose rights.
        project: Name or number of the project.
        workflow: Name or number of the workflow, in the project.
        dataset: Name or number of the dataset, in the project.
        first_task: The workflow's task to begin with; the first is 0, and the default.
        last_task: The workflow's task to end with; default: the last.
        images: All images, or for each task only those that it is not done with.
        attribute_filters: Only images that have one of these values of each attribute,
            e.g. {"well": ["A01", "B02"]}.
        type_filters: Only images that have (or, if false, have not) these types, e.g.
            {"is_3D": true}.
        slurm_account: SLURM account of the job, one of the user's; default: SLURM's choice.
        worker_init: Lines of shell that the job's SLURM scripts begin with.
    """
    context = FlowRunContext.get()
    assert context is not None  # in which a flow runs
    assert context.flow_run is not None
    flow_run, request = context.flow_run, JobRequest(**context.parameters or {})
    try:
        async with open_job(flow_run, request) as job:
            with on_signals({STOP_SIGNAL: job.stop, signal.SIGTERM: job.terminate}):
                job.say(f"Job {job.id} {job.how_it_begins}, in {job.folder.path}.")
                with plan_shown(job):
                    for workflow_task in job.workflow_tasks:
                        await run_workflow_task(job, workflow_task)
    except JobEndedError as ended:
        return Completed(message=str(ended))
    except JobStoppedError as reason:
        cancelled: State[Any] = Cancelled(message=str(reason))
        await hooks.job_stopped(run_job, flow_run, cancelled)  # which Prefect leaves to its runners
        return cancelled
    except JobUnavailableError as reason:
        return Cancelled(message=str(reason))
    except (JobRefusedError, NotFoundError, ForbiddenError) as refusal:
        return await _refused(flow_run, refusal)
    except (WorkflowTaskFailedError, WorkflowTaskRefusedError, PlanError) as reason:
        return Failed(message=str(reason))  # which needs no traceback in the Prefect log
    except Exception as error:
        return Failed(message=told(error, f"Flow run {flow_run.name} failed."))
    return None


async def _refused(flow_run: FlowRun, refusal: Exception) -> State[Any]:
    """The final state of a flow run for which no job could be made.

    A flow run that began by a schedule, and could have a job at another time, is Skipped: that may
    be as intended. All others have failed. If the flow run of a schedule was refused for a lasting
    reason, its next ones would be refused too, so the schedule is paused.
    """
    if begins_by_itself(flow_run):
        if isinstance(refusal, NotNowError):
            return Cancelled(name=SKIPPED, message=str(refusal))
        await _pause_schedule(flow_run, str(refusal))
    return Failed(message=str(refusal))


async def _pause_schedule(flow_run: FlowRun, notice: str) -> None:
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        await rows.note(session, flow_run.deployment_id, notice)
