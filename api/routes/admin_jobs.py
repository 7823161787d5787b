"""Administration of jobs, whoever they belong to."""

from operator import eq, ge, le
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, status
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import AwareDatetime, EmailStr
from sqlmodel import col

from api.dependencies import EngineDep, SessionDep, SettingsDep, SparedEngineDep, Superuser
from api.jobs import end_as_failed, read_whole_job, request_end, zipped_folder
from api.lookups import find
from api.paging import PagingDep, page_of
from api.queries.conditions import asked_for
from api.queries.jobs import jobs_in_projects
from fractal_models.schemas.base import Page
from fractal_models.schemas.job import JobRead, JobUpdate
from fractal_models.tables import JobV2, LinkUserProjectV2, ProjectV2
from fractal_models.tables.columns import now

router = APIRouter(prefix="/admin/v2/job", tags=["Administration"])


async def _any_job(job_id: int, _: Superuser, session: SessionDep) -> JobV2:
    return await find(session, JobV2, job_id)


_AnyJob = Annotated[JobV2, Depends(_any_job)]


@router.get("/")
async def list_all_jobs(
    _: Superuser,
    session: SessionDep,
    paging: PagingDep,
    id: int | None = None,
    resource_id: int | None = None,
    project_owner_id: int | None = None,
    job_user_email: EmailStr | None = None,
    project_id: int | None = None,
    dataset_id: int | None = None,
    workflow_id: int | None = None,
    status: Literal["submitted", "done", "failed"] | None = None,
    start_timestamp_min: AwareDatetime | None = None,
    start_timestamp_max: AwareDatetime | None = None,
    end_timestamp_min: AwareDatetime | None = None,
    end_timestamp_max: AwareDatetime | None = None,
    log: bool = True,
) -> Page[JobRead]:
    """The jobs of all users, the newest first."""
    started, ended = col(JobV2.start_timestamp), col(JobV2.end_timestamp)
    query = jobs_in_projects(log=log).where(
        *asked_for(
            (eq, col(JobV2.id), id),
            (eq, col(ProjectV2.resource_id), resource_id),
            (eq, col(LinkUserProjectV2.user_id), project_owner_id),
            (eq, col(JobV2.user_email), job_user_email),
            (eq, col(JobV2.project_id), project_id),
            (eq, col(JobV2.dataset_id), dataset_id),
            (eq, col(JobV2.workflow_id), workflow_id),
            (eq, col(JobV2.status), status),
            (ge, started, start_timestamp_min),
            (ge, ended, end_timestamp_min),
            (le, started, start_timestamp_max),
            (le, ended, end_timestamp_max),
        )
    )
    return await page_of(session, query, paging, JobRead.model_validate)


@router.get("/{job_id}/")
async def read_any_job(job: _AnyJob, session: SessionDep, show_tmp_logs: bool = False) -> JobRead:
    """A job; `show_tmp_logs` gives the log of one that runs, as far as it is written."""
    return await read_whole_job(session, job, with_log_so_far=show_tmp_logs)


@router.patch("/{job_id}/")
async def end_any_job(
    job: _AnyJob,
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
    await end_as_failed(session, engine, settings.async_database_url, job, reason)
    return JobRead.model_validate(job)


@router.get("/{job_id}/stop/", status_code=status.HTTP_202_ACCEPTED)
async def stop_any_job(job: _AnyJob, session: SessionDep, engine: SparedEngineDep) -> None:
    """Ask a job to stop; it ends as failed a moment later, with a log that says so."""
    await request_end(session, engine, job)


@router.get("/{job_id}/download/", response_class=FileResponse)
async def download_any_job(job: _AnyJob, session: SessionDep) -> StreamingResponse:
    """The folder of a job with its logs and arguments, zipped."""
    return await zipped_folder(session, job)
