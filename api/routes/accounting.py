"""What users had processed."""

from operator import eq, ge, le

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlmodel import col

from api.dependencies import SessionDep, Superuser
from api.paging import PagingDep, page_of
from api.queries.conditions import asked_for
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
    query = (
        select(record)
        .order_by(col(record.id))
        .where(
            *asked_for(
                (eq, col(record.user_id), request.user_id),
                (ge, col(record.timestamp), request.timestamp_min),
                (le, col(record.timestamp), request.timestamp_max),
            )
        )
    )
    return await page_of(session, query, paging, AccountingRecordRead.model_validate)


@router.post("/slurm/")
async def list_accounted_slurm_jobs(
    request: AccountingQuerySLURM, _: Superuser, session: SessionDep
) -> list[int]:
    """The ids of SLURM jobs, in the order in which they were submitted."""
    record = AccountingRecordSlurm
    query = (
        select(func.unnest(record.slurm_job_ids))
        .order_by(col(record.id))
        .where(
            *asked_for(
                (eq, col(record.user_id), request.user_id),
                (eq, col(record.fractal_job_id), request.fractal_job_id),
                (eq, col(record.resource_id), request.resource_id),
                (ge, col(record.timestamp), request.timestamp_min),
                (le, col(record.timestamp), request.timestamp_max),
            )
        )
    )
    return list((await session.execute(query)).scalars())
