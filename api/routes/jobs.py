"""Jobs: submit, watch, stop, download."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Response, status
from fastapi.responses import FileResponse, StreamingResponse
from sqlmodel import col

from api.dependencies import (
    Contributor,
    EngineDep,
    ExecutableDataset,
    ExecutableJob,
    ExecutableProject,
    ExecutableWorkflow,
    ReadableDataset,
    ReadableJob,
    ReadableProject,
    ReadableWorkflow,
    SessionDep,
    SparedEngineDep,
    UserResource,
    VerifiedUser,
)
from api.documents import JsonDocument
from api.jobs import hand_over, read_whole_job, request_end, zipped_folder
from api.queries.history import task_statuses
from api.queries.jobs import in_projects_of, latest_job, list_jobs
from flows.engine.pauses import pause, resume
from flows.launchers.choice import query_transport
from flows.launchers.slurm.queue import describe_queue
from flows.process.transport import CommandError, TransportError
from flows.submission import create_job
from fractal_models.database import release
from fractal_models.errors import NotFoundError, RefusedError, UnavailableError
from fractal_models.schemas.job import JobCreate, JobRead, JobWithTaskStatuses
from fractal_models.tables import JobV2, Profile, Resource

router = APIRouter(prefix="/api/v2", tags=["Job"])


@router.post("/project/{project_id}/job/submit/", status_code=status.HTTP_202_ACCEPTED)
async def submit_job(
    request: JobCreate,
    user: VerifiedUser,
    project: ExecutableProject,
    workflow: ExecutableWorkflow,
    dataset: ExecutableDataset,
    session: SessionDep,
    engine: SparedEngineDep,
) -> JobRead:
    """Run the workflow on the dataset.

    If Prefect or the worker of the resource is away, the job starts when it is back, and its `log`
    says so.
    """
    job = await create_job(
        session, user=user, project=project, workflow=workflow, dataset=dataset, request=request
    )
    resource = await session.get_one(Resource, project.resource_id)
    await hand_over(session, engine, job, resource)
    return JobRead.model_validate(job)


@router.get("/job/", response_model=list[JobRead])
async def list_my_jobs(user: VerifiedUser, session: SessionDep, log: bool = True) -> Response:
    """The jobs of all projects that the user owns or has joined, the newest first."""
    return JsonDocument(await list_jobs(session, in_projects_of(user), log=log))


@router.get("/job/squeue/")
async def read_squeue(
    user: Contributor,
    resource: UserResource,
    session: SessionDep,
    scope: Literal["all", "user", "accounts"] = "all",
) -> str:
    """The queue of the user's cluster, as SLURM prints it."""
    if resource.type == "local":
        raise RefusedError(f"Resource {resource.name!r} is no SLURM cluster: it has no queue.")
    if scope == "accounts" and not user.slurm_accounts:
        raise RefusedError(f"User {user.email} has no SLURM accounts.")
    profile = await session.get_one(Profile, user.profile_id)
    await release(session)
    transport = query_transport(resource, profile)
    try:
        return await describe_queue(
            transport,
            user=profile.username if scope == "user" else None,
            accounts=user.slurm_accounts if scope == "accounts" else None,
        )
    except (TransportError, CommandError) as error:
        raise UnavailableError(f"SLURM does not answer. {error}") from error
    finally:
        await transport.close()


@router.get("/project/{project_id}/job/", response_model=list[JobRead])
async def list_project_jobs(
    project: ReadableProject, session: SessionDep, log: bool = True
) -> Response:
    return JsonDocument(await list_jobs(session, col(JobV2.project_id) == project.id, log=log))


@router.get("/project/{project_id}/workflow/{workflow_id}/job/", response_model=list[JobRead])
async def list_workflow_jobs(workflow: ReadableWorkflow, session: SessionDep) -> Response:
    return JsonDocument(await list_jobs(session, col(JobV2.workflow_id) == workflow.id))


@router.get("/project/{project_id}/latest-job/")
async def read_latest_job(
    workflow: ReadableWorkflow, dataset: ReadableDataset, session: SessionDep
) -> JobWithTaskStatuses:
    """The latest job of the workflow on the dataset, and how its tasks stand there."""
    job = await latest_job(
        session, col(JobV2.workflow_id) == workflow.id, col(JobV2.dataset_id) == dataset.id
    )
    if job is None:
        raise NotFoundError("A job", f"of workflow {workflow.id} on dataset {dataset.id}")
    statuses = await task_statuses(session, workflow, dataset)
    return JobWithTaskStatuses.model_validate(
        {**dict(job), "task_statuses": {str(key): value for key, value in statuses.items()}}
    )


@router.get("/project/{project_id}/job/{job_id}/")
async def read_job(job: ReadableJob, session: SessionDep, show_tmp_logs: bool = False) -> JobRead:
    """A job; `show_tmp_logs` gives the log of one that runs, as far as it is written."""
    return await read_whole_job(session, job, with_log_so_far=show_tmp_logs)


@router.get("/project/{project_id}/job/{job_id}/stop/", status_code=status.HTTP_202_ACCEPTED)
async def stop_job(job: ExecutableJob, session: SessionDep, engine: SparedEngineDep) -> None:
    """Ask a job to stop; it ends as failed a moment later, with a log that says so."""
    await request_end(session, engine, job)


@router.post("/project/{project_id}/job/{job_id}/pause/", status_code=status.HTTP_202_ACCEPTED)
async def pause_job(
    job: ExecutableJob, user: VerifiedUser, session: SessionDep, engine: EngineDep
) -> None:
    """Have a job end the workflow task that runs, and then hold no process until it is continued.

    Suspending its run in the Prefect UI does the same.
    """
    await release(session)
    await pause(engine, _flow_run_of(job), f"Paused by {user.email}.")


@router.post("/project/{project_id}/job/{job_id}/continue/", status_code=status.HTTP_202_ACCEPTED)
async def continue_job(job: ExecutableJob, session: SessionDep, engine: EngineDep) -> None:
    """Have a paused job go on with its next workflow task."""
    await release(session)
    await resume(engine, _flow_run_of(job))


def _flow_run_of(job: JobV2) -> UUID:
    """The flow run of a job that can still be paused or continued."""
    if job.status != "submitted":
        raise RefusedError(f"Job {job.id} has ended already ({job.status}).")
    if job.flow_run_id is None:
        raise UnavailableError(
            f"Job {job.id} has no flow run yet, since Prefect did not answer: try again later."
        )
    return job.flow_run_id


@router.get("/project/{project_id}/job/{job_id}/download/", response_class=FileResponse)
async def download_job(job: ReadableJob, session: SessionDep) -> StreamingResponse:
    """The folder of a job with its logs and arguments, zipped."""
    return await zipped_folder(session, job)
