"""What users had processed."""

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlmodel import col

from api.dependencies import SessionDep, Superuser
from api.paging import PagingDep, page_of
from api.queries.filters import narrowed
from fractal_models.schemas.accounting import (
    AccountingQuery,
    AccountingQuerySLURM,
    AccountingRecordRead,
)
from fractal_models.schemas.base import Page
from fractal_models.tables import AccountingRecord, AccountingRecordSlurm

router = APIRouter(prefix="/admin/v2/accounting", tags=["Administration"])


@router.post("/")
async def list_accounting_records(
    request: AccountingQuery, _: Superuser, session: SessionDep, paging: PagingDep
) -> Page[AccountingRecordRead]:
    """The ended workflow tasks, the oldest first."""
    record = AccountingRecord
    query = narrowed(
        select(record).order_by(col(record.id)),
        equal=[(col(record.user_id), request.user_id)],
        since=[(col(record.timestamp), request.timestamp_min)],
        until=[(col(record.timestamp), request.timestamp_max)],
    )
    return await page_of(session, query, paging, AccountingRecordRead.model_validate)


@router.post("/slurm/")
async def list_accounted_slurm_jobs(
    request: AccountingQuerySLURM, _: Superuser, session: SessionDep
) -> list[int]:
    """The ids of SLURM jobs, in the order in which they were submitted."""
    record = AccountingRecordSlurm
    query = narrowed(
        select(func.unnest(record.slurm_job_ids)).order_by(col(record.id)),
        equal=[
            (col(record.user_id), request.user_id),
            (col(record.fractal_job_id), request.fractal_job_id),
            (col(record.resource_id), request.resource_id),
        ],
        since=[(col(record.timestamp), request.timestamp_min)],
        until=[(col(record.timestamp), request.timestamp_max)],
    )
    return list((await session.execute(query)).scalars())
