"""Jobs: submit, watch, stop, download."""

import asyncio
import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Literal
from uuid import UUID

from fastapi import APIRouter, status
from fastapi.responses import FileResponse
from sqlmodel import col
from starlette.background import BackgroundTask

from api.dependencies import (
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
    UserResource,
    VerifiedUser,
)
from api.errors import unavailable, unprocessable
from api.logs import read_log
from api.queries.history import task_statuses
from api.queries.jobs import read_jobs
from flows.engine import EngineUnavailableError
from flows.history import end_job, request_stop
from flows.job_folder import JOB_LOG, archive_path, write_archive
from flows.launchers.of_job import looking_transport
from flows.launchers.slurm_queue import describe_queue
from flows.launchers.transport import CommandError, TransportError
from flows.pauses import pause, resume
from flows.submission import create_job
from fractal_models.rights import NotFoundError
from fractal_models.schemas.job import JobCreate, JobRead, JobWithTaskStatuses
from fractal_models.tables import JobV2, Profile, Resource

router = APIRouter(prefix="/api/v2", tags=["Job"])

_LOGGER = logging.getLogger("fractal.api")
_ZIP = "application/x-zip-compressed"


@router.post("/project/{project_id}/job/submit/", status_code=status.HTTP_202_ACCEPTED)
async def submit_job(
    request: JobCreate,
    user: VerifiedUser,
    project: ExecutableProject,
    workflow: ExecutableWorkflow,
    dataset: ExecutableDataset,
    session: SessionDep,
    engine: EngineDep,
) -> JobRead:
    """Run the workflow on the dataset. If Prefect is away, the job starts when it is back."""
    job = await create_job(
        session, user=user, project=project, workflow=workflow, dataset=dataset, request=request
    )
    resource = await session.get_one(Resource, project.resource_id)
    try:
        job.flow_run_id = await engine.submit_job(job, resource.name)
        await session.commit()
    except EngineUnavailableError as error:
        _LOGGER.warning("Job %s waits for Prefect: %s", job.id, error)
    return JobRead.model_validate(job)


@router.get("/job/")
async def list_my_jobs(user: VerifiedUser, session: SessionDep, log: bool = True) -> list[JobRead]:
    """The jobs that the user submitted, the newest first."""
    return await read_jobs(session, col(JobV2.user_email) == user.email, log=log)


@router.get("/job/squeue/")
async def read_squeue(
    user: VerifiedUser,
    resource: UserResource,
    session: SessionDep,
    scope: Literal["all", "user", "accounts"] = "all",
) -> str:
    """The queue of the user's cluster, as SLURM prints it."""
    if resource.type == "local":
        raise unprocessable(f"Resource {resource.name!r} is no SLURM cluster: it has no queue.")
    if scope == "accounts" and not user.slurm_accounts:
        raise unprocessable(f"User {user.email} has no SLURM accounts.")
    profile = await session.get_one(Profile, user.profile_id)
    transport = looking_transport(resource, profile)
    try:
        return await describe_queue(
            transport,
            user=profile.username if scope == "user" else None,
            accounts=user.slurm_accounts if scope == "accounts" else None,
        )
    except (TransportError, CommandError) as error:
        raise unavailable(f"SLURM does not answer. {error}") from error
    finally:
        await transport.close()


@router.get("/project/{project_id}/job/")
async def list_project_jobs(
    project: ReadableProject, session: SessionDep, log: bool = True
) -> list[JobRead]:
    return await read_jobs(session, col(JobV2.project_id) == project.id, log=log)


@router.get("/project/{project_id}/workflow/{workflow_id}/job/")
async def list_workflow_jobs(workflow: ReadableWorkflow, session: SessionDep) -> list[JobRead]:
    return await read_jobs(session, col(JobV2.workflow_id) == workflow.id)


@router.get("/project/{project_id}/latest-job/")
async def read_latest_job(
    workflow: ReadableWorkflow, dataset: ReadableDataset, session: SessionDep
) -> JobWithTaskStatuses:
    """The latest job of the workflow on the dataset, and how its tasks stand there."""
    jobs = await read_jobs(
        session,
        col(JobV2.workflow_id) == workflow.id,
        col(JobV2.dataset_id) == dataset.id,
        limit=1,
    )
    if not jobs:
        raise NotFoundError("A job", f"of workflow {workflow.id} on dataset {dataset.id}")
    statuses = await task_statuses(session, workflow, dataset)
    return JobWithTaskStatuses.model_validate(
        {**dict(jobs[0]), "task_statuses": {str(key): value for key, value in statuses.items()}}
    )


@router.get("/project/{project_id}/job/{job_id}/")
async def read_job(job: ReadableJob, show_tmp_logs: bool = False) -> JobRead:
    """A job; `show_tmp_logs` gives the log of one that runs, as far as it is written."""
    answer = JobRead.model_validate(job)
    if show_tmp_logs and job.status == "submitted" and job.working_dir:
        path = Path(job.working_dir) / JOB_LOG
        if path.is_file():  # else, and after that, why the job waits
            answer.log = f"{await read_log(path)}{job.log or ''}"
    return answer


@router.get("/project/{project_id}/job/{job_id}/stop/", status_code=status.HTTP_202_ACCEPTED)
async def stop_job(job: ExecutableJob, session: SessionDep, engine: EngineDep) -> None:
    """Ask a job to stop; it ends as failed a moment later, with a log that says so.

    Whoever executes it, now or after an interruption, will obey; Prefect only tells it sooner.
    """
    if job.id is None or job.status != "submitted":
        raise unprocessable(f"Job {job.id} has ended already ({job.status}).")
    await request_stop(session, job.id, "Stopped through the Fractal API.")
    reason = "The job was stopped before it began."
    end = partial(end_job, session, job.id, outcome="stopped", reason=reason, log=reason)
    if job.flow_run_id is None and await end(only_without_flow_run=True):
        return
    await session.refresh(job, ["flow_run_id"])
    try:
        ended = job.flow_run_id is not None and await engine.cancel(job.flow_run_id)
    except EngineUnavailableError as error:
        _LOGGER.warning("Job %s will stop without being told by Prefect: %s", job.id, error)
        return
    if ended and not await asyncio.to_thread(Path(str(job.working_dir)).exists):
        await end()


@router.post("/project/{project_id}/job/{job_id}/pause/", status_code=status.HTTP_202_ACCEPTED)
async def pause_job(job: ExecutableJob, user: VerifiedUser, engine: EngineDep) -> None:
    """Have a job end the workflow task that runs, and then hold no process until it is continued.

    Suspending its run in the Prefect UI does the same.
    """
    await pause(engine, _flow_run_of(job), f"Paused by {user.email}.")


@router.post("/project/{project_id}/job/{job_id}/continue/", status_code=status.HTTP_202_ACCEPTED)
async def continue_job(job: ExecutableJob, engine: EngineDep) -> None:
    """Have a paused job go on with its next workflow task."""
    await resume(engine, _flow_run_of(job))


def _flow_run_of(job: JobV2) -> UUID:
    """The flow run of a job that can still be paused or continued."""
    if job.status != "submitted":
        raise unprocessable(f"Job {job.id} has ended already ({job.status}).")
    if job.flow_run_id is None:
        raise unavailable(
            f"Job {job.id} has no flow run yet, since Prefect did not answer: try again later."
        )
    return job.flow_run_id


@router.get("/project/{project_id}/job/{job_id}/download/", response_class=FileResponse)
async def download_job(job: ReadableJob) -> FileResponse:
    """The folder of a job with its logs and arguments, zipped."""
    folder = Path(job.working_dir or "")
    archive = archive_path(folder)
    if job.working_dir is None or not (folder.is_dir() or archive.is_file()):
        raise NotFoundError("The folder of job", job.id)
    name = archive.name
    if archive.is_file():
        return FileResponse(archive, media_type=_ZIP, filename=name)
    with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file:
        temporary = Path(file.name)
    await asyncio.to_thread(write_archive, folder, temporary)
    cleanup = BackgroundTask(temporary.unlink)
    return FileResponse(temporary, media_type=_ZIP, filename=name, background=cleanup)
