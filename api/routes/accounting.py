"""What users had processed."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime
from sqlalchemy import func, select
from sqlmodel import col

from api import lists
from api.services import SessionDep, Superuser
from flows.records.allocations import usage
from flows.reports.usage import usage_csv
from fractal_models.schemas import accounting as schemas
from fractal_models.schemas.base import Page
from fractal_models.schemas.usage import Usage, UsageBy
from fractal_models.tables import AccountingRecord, AccountingRecordSlurm

router = APIRouter(prefix="/admin/v2/accounting", tags=["Administration"])
router_of_usage = APIRouter(prefix="/admin/v2/usage", tags=["Administration"])


_CONDITIONS = {
    "user_id": lists.equals(AccountingRecord.user_id),
    "timestamp_min": lists.at_least(AccountingRecord.timestamp),
    "timestamp_max": lists.at_most(AccountingRecord.timestamp),
}
_CONDITIONS_OF_SLURM_JOBS = {
    "user_id": lists.equals(AccountingRecordSlurm.user_id),
    "fractal_job_id": lists.equals(AccountingRecordSlurm.fractal_job_id),
    "resource_id": lists.equals(AccountingRecordSlurm.resource_id),
    "timestamp_min": lists.at_least(AccountingRecordSlurm.timestamp),
    "timestamp_max": lists.at_most(AccountingRecordSlurm.timestamp),
}


@router.post("/", response_model=Page[schemas.AccountingRecordRead])
async def list_accounting_records(
    request: schemas.AccountingQuery, _: Superuser, session: SessionDep, paging: lists.PagingDep
) -> Response:
    """The ended workflow tasks, the oldest first."""
    where = lists.asked_for(request, _CONDITIONS)
    query = select(AccountingRecord).where(*where).order_by(col(AccountingRecord.id))
    return await lists.page_of(session, schemas.AccountingRecordRead, query, paging)


@router.post("/slurm/")
async def list_accounted_slurm_jobs(
    request: schemas.AccountingQuerySLURM, _: Superuser, session: SessionDep
) -> list[int]:
    """The ids of SLURM jobs, in the order in which they were submitted."""
    query = (
        select(func.unnest(AccountingRecordSlurm.slurm_job_ids))
        .where(*lists.asked_for(request, _CONDITIONS_OF_SLURM_JOBS))
        .order_by(col(AccountingRecordSlurm.id))
    )
    return list((await session.execute(query)).scalars())


@router_of_usage.get("/", response_model=list[Usage], response_model_exclude_none=True)
async def read_usage(
    _: Superuser,
    session: SessionDep,
    by: Annotated[list[UsageBy], Query()] = ["user"],  # noqa: B006  # FastAPI copies it
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    format: Literal["json", "csv"] = "json",
) -> list[Usage] | Response:
    """CPU, GPU and GB hours that were reserved for units, and used, of jobs that have ended.

    `since` and `until` say when what counts began.
    """
    by = list(dict.fromkeys(by))
    rows = await usage(session, by, since, until)
    return rows if format == "json" else Response(usage_csv(rows, by), media_type="text/csv")
