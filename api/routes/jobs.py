"""Jobs: submit, watch, stop, download."""

import asyncio
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Response, status
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from pydantic import AwareDatetime, EmailStr
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from api import lists, rights
from api.gone_clients import changes_something
from api.lists import at_least, at_most, equals
from api.queries import jobs
from api.readers import ProjectReader, SuperuserReader, VerifiedReader
from api.services import (
    Contributor,
    EngineDep,
    Services,
    ServicesDep,
    SessionDep,
    SettingsDep,
    SnapshotDep,
    SparedEngineDep,
    Superuser,
    VerifiedUser,
)
from flows import control
from flows.engine.client import Engine
from flows.engine.pauses import pause, resume
from flows.job_report.report import report_of
from flows.launchers.choice import query_transport
from flows.launchers.slurm.queue import describe_queue
from flows.plans.job import plan_request
from flows.process.transport import CommandError, TransportError
from flows.records.statuses import task_statuses
from flows.submission import create_job
from flows.units.job_files import log_so_far, open_zip
from flows.units.job_folder import archive_path
from fractal_models.database import release
from fractal_models.errors import NotFoundError, RefusedError, UnavailableError
from fractal_models.schemas.base import Page
from fractal_models.schemas.job import JobCreate, JobRead, JobUpdate, JobWithTaskStatuses
from fractal_models.schemas.plan import JobPlan
from fractal_models.tables import JobV2, LinkUserProjectV2, Profile, ProjectV2, Resource
from fractal_models.tables.columns import now

router = APIRouter(prefix="/api/v2", tags=["Job"])
router_of_all = APIRouter(prefix="/admin/v2/job", tags=["Administration"])

_LOGGER = logging.getLogger("fractal.api")
_ZIP = "application/x-zip-compressed"
_PORTION_BYTES = 256 << 10
# A page has what tasks printed: whatever that is, it runs nothing and asks for nothing.
_STILL = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


@router.post("/project/{project_id}/job/submit/", status_code=status.HTTP_202_ACCEPTED)
async def submit_job(
    request: JobCreate,
    user: VerifiedUser,
    project: rights.ExecutableProject,
    workflow: rights.ExecutableWorkflow,
    dataset: rights.ExecutableDataset,
    session: SessionDep,
    engine: SparedEngineDep,
    services: ServicesDep,
    later: BackgroundTasks,
) -> JobRead:
    """Run the workflow on the dataset.

    The job gets its flow run when this is answered. If Prefect or the worker of the resource is
    away, the job starts when it is back, and soon its `log` says so.
    """
    job = await create_job(
        session, user=user, project=project, workflow=workflow, dataset=dataset, request=request
    )
    resource = await session.get_one(Resource, project.resource_id)
    later.add_task(_hand_over, services, engine, job, resource)
    return JobRead.model_validate(job)


@router.post("/project/{project_id}/job/plan/")
async def plan_job(
    request: JobCreate,
    user: VerifiedUser,
    project: rights.ExecutableProject,
    workflow: rights.ExecutableWorkflow,
    dataset: rights.ExecutableDataset,
    session: SnapshotDep,
) -> JobPlan:
    """What the job of this request would do, what it would take, and what is wrong with it.

    Nothing is changed. The files that the job needs are looked at as the user its units run as.
    """
    return await plan_request(
        session, user=user, project=project, workflow=workflow, dataset=dataset, request=request
    )


async def _hand_over(services: Services, engine: Engine, job: JobV2, resource: Resource) -> None:
    async with services.handing_over, services.sessions() as session:
        await control.hand_over(session, engine, job, resource)


@router.get("/job/", response_model=list[JobRead])
async def list_my_jobs(reader: VerifiedReader, log: bool = True) -> Response:
    """The jobs of all projects that the user owns or has joined, the newest first."""
    return await reader.answer(jobs.MINE[log])


@router.get("/job/squeue/")
async def read_squeue(
    user: Contributor,
    resource: rights.UserResource,
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
            cluster=resource.jobs_runner_config.get("cluster"),
            user=profile.username if scope == "user" else None,
            accounts=user.slurm_accounts if scope == "accounts" else None,
        )
    except (TransportError, CommandError) as error:
        raise UnavailableError(f"SLURM does not answer. {error}") from error
    finally:
        await transport.close()


@router.get("/project/{project_id}/job/", response_model=list[JobRead])
async def list_project_jobs(reader: ProjectReader, log: bool = True) -> Response:
    return await reader.answer(jobs.OF_PROJECT[log])


@router.get("/project/{project_id}/workflow/{workflow_id}/job/", response_model=list[JobRead])
async def list_workflow_jobs(workflow: rights.ReadableWorkflow, session: SessionDep) -> Response:
    query = jobs.newest_first().where(col(JobV2.workflow_id) == workflow.id)
    return await lists.list_of(session, JobRead, query)


@router.get("/project/{project_id}/latest-job/")
async def read_latest_job(
    workflow: rights.ReadableWorkflow, dataset: rights.ReadableDataset, session: SessionDep
) -> JobWithTaskStatuses:
    """The latest job of the workflow on the dataset, and how its tasks stand there."""
    job = await jobs.latest_job(
        session, col(JobV2.workflow_id) == workflow.id, col(JobV2.dataset_id) == dataset.id
    )
    if job is None:
        raise NotFoundError("A job", f"of workflow {workflow.id} on dataset {dataset.id}")
    statuses = await task_statuses(session, workflow, dataset)
    return JobWithTaskStatuses.model_validate(
        {**dict(job), "task_statuses": {str(key): value for key, value in statuses.items()}}
    )


@router.get("/project/{project_id}/job/{job_id}/")
async def read_job(
    job: rights.ReadableJob, session: SessionDep, show_tmp_logs: bool = False
) -> JobRead:
    """A job; `show_tmp_logs` gives the log of one that runs, as far as it is written."""
    return await _read(session, job, with_log_so_far=show_tmp_logs)


@router.get("/project/{project_id}/job/{job_id}/stop/", status_code=status.HTTP_202_ACCEPTED)
@changes_something
async def stop_job(job: rights.ExecutableJob, session: SessionDep, engine: SparedEngineDep) -> None:
    """Ask a job to stop; it ends as failed a moment later, with a log that says so."""
    await control.request_end(session, engine, job)


@router.post("/project/{project_id}/job/{job_id}/pause/", status_code=status.HTTP_202_ACCEPTED)
async def pause_job(
    job: rights.ExecutableJob, user: VerifiedUser, session: SessionDep, engine: EngineDep
) -> None:
    """Have a job end the workflow task that runs, and then hold no process until it is continued.

    Suspending its run in the Prefect UI does the same.
    """
    await release(session)
    await pause(engine, _flow_run_of(job), f"Paused by {user.email}.")


@router.post("/project/{project_id}/job/{job_id}/continue/", status_code=status.HTTP_202_ACCEPTED)
async def continue_job(job: rights.ExecutableJob, session: SessionDep, engine: EngineDep) -> None:
    """Have a paused job go on with its next workflow task."""
    await release(session)
    await resume(engine, _flow_run_of(job))


def _flow_run_of(job: JobV2) -> UUID:
    """The flow run of a job that can still be paused or continued."""
    control.require_submitted(job)
    if job.flow_run_id is None:
        raise UnavailableError(
            f"Job {job.id} has no flow run yet, since Prefect did not answer: try again later."
        )
    return job.flow_run_id


@router.get("/project/{project_id}/job/{job_id}/download/", response_class=FileResponse)
async def download_job(job: rights.ReadableJob, session: SessionDep) -> StreamingResponse:
    """The folder of a job with its logs and arguments, zipped."""
    return await _zipped_folder(session, job)


@router.get("/project/{project_id}/job/{job_id}/report.html", response_class=Response)
async def report_job(job: rights.ReadableJob, session: SessionDep) -> HTMLResponse:
    """What the job did, took and failed at, as one page that needs nothing else."""
    return HTMLResponse(await report_of(session, job), headers=_STILL)


# --- for administrators ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Which jobs are asked for, of all that there are."""

    id: Annotated[int | None, equals(JobV2.id)] = None
    resource_id: Annotated[int | None, equals(ProjectV2.resource_id)] = None
    project_owner_id: Annotated[int | None, equals(LinkUserProjectV2.user_id)] = None
    job_user_email: Annotated[EmailStr | None, equals(JobV2.user_email)] = None
    project_id: Annotated[int | None, equals(JobV2.project_id)] = None
    dataset_id: Annotated[int | None, equals(JobV2.dataset_id)] = None
    workflow_id: Annotated[int | None, equals(JobV2.workflow_id)] = None
    status: Annotated[Literal["submitted", "done", "failed"] | None, equals(JobV2.status)] = None
    start_timestamp_min: Annotated[AwareDatetime | None, at_least(JobV2.start_timestamp)] = None
    start_timestamp_max: Annotated[AwareDatetime | None, at_most(JobV2.start_timestamp)] = None
    end_timestamp_min: Annotated[AwareDatetime | None, at_least(JobV2.end_timestamp)] = None
    end_timestamp_max: Annotated[AwareDatetime | None, at_most(JobV2.end_timestamp)] = None


_ALL_JOBS = {
    log: lists.Pages(JobRead, jobs.jobs_in_projects(log=log), JobFilters) for log in (True, False)
}


@router_of_all.get("/", response_model=Page[JobRead])
async def list_all_jobs(
    filters: Annotated[JobFilters, lists.filters(JobFilters)],
    reader: SuperuserReader,
    paging: lists.PagingDep,
    log: bool = True,
) -> Response:
    """The jobs of all users, the newest first."""
    document = _ALL_JOBS[log].asked_for(filters)
    return await reader.answer(document, **paging.values, **asdict(filters))


@router_of_all.get("/{job_id}/")
async def read_any_job(
    job: rights.AnyJob, session: SessionDep, show_tmp_logs: bool = False
) -> JobRead:
    """A job; `show_tmp_logs` gives the log of one that runs, as far as it is written."""
    return await _read(session, job, with_log_so_far=show_tmp_logs)


@router_of_all.patch("/{job_id}/")
async def end_any_job(
    job: rights.AnyJob,
    _: JobUpdate,
    user: Superuser,
    session: SessionDep,
    engine: EngineDep,
    settings: SettingsDep,
) -> JobRead:
    """End a job as failed that nobody executes, e.g. since the worker of its resource is gone.

    What still runs on a cluster is not ended with it.
    """
    reason = f"Set to failed by administrator {user.email}, {now().isoformat(' ', 'seconds')}."
    await control.end_as_failed(session, engine, settings.async_database_url, job, reason)
    return JobRead.model_validate(job)


@router_of_all.get("/{job_id}/stop/", status_code=status.HTTP_202_ACCEPTED)
@changes_something
async def stop_any_job(job: rights.AnyJob, session: SessionDep, engine: SparedEngineDep) -> None:
    """Ask a job to stop; it ends as failed a moment later, with a log that says so."""
    await control.request_end(session, engine, job)


@router_of_all.get("/{job_id}/download/", response_class=FileResponse)
async def download_any_job(job: rights.AnyJob, session: SessionDep) -> StreamingResponse:
    """The folder of a job with its logs and arguments, zipped."""
    return await _zipped_folder(session, job)


@router_of_all.get("/{job_id}/report.html", response_class=Response)
async def report_any_job(job: rights.AnyJob, session: SessionDep) -> HTMLResponse:
    """What the job did, took and failed at, as one page that needs nothing else."""
    return HTMLResponse(await report_of(session, job), headers=_STILL)


# --- what both answer with ---------------------------------------------------------------------


async def _read(session: AsyncSession, job: JobV2, *, with_log_so_far: bool) -> JobRead:
    """A job; if one that runs is to have its log so far, as far as that is written."""
    answer = JobRead.model_validate(job)
    if with_log_so_far and job.status == "submitted":
        await release(session)
        answer.log = await log_so_far(job)
    return answer


async def _zipped_folder(session: AsyncSession, job: JobV2) -> StreamingResponse:
    """The folder of a job, zipped; the archive that was made at its end, if it has ended.

    Raises:
        NotFoundError: it has none, or that was removed.
    """
    await release(session)
    if job.working_dir is None:
        raise NotFoundError("The folder of job", job.id)
    folder = Path(job.working_dir)
    try:
        file = await asyncio.to_thread(open_zip, folder)
    except OSError as error:
        _LOGGER.warning("The folder of job %s cannot be sent: %s", job.id, error)
        raise NotFoundError("The folder of job", job.id) from error
    headers = {
        "content-length": str(os.fstat(file.fileno()).st_size),
        "content-disposition": f'attachment; filename="{archive_path(folder).name}"',
    }
    return StreamingResponse(_portions(file), media_type=_ZIP, headers=headers)


def _portions(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while portion := file.read(_PORTION_BYTES):
            yield portion
