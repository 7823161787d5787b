"""What was done to a dataset by a workflow task: runs, units, images, logs."""

from pathlib import Path
from typing import get_args

from fastapi import APIRouter, Response
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.gone_clients import only_reads
from api.lists import PagingDep, page_of
from api.queries.images import page_of_images, search_for
from api.rights import (
    ReadableDataset,
    ReadableHistoryRun,
    ReadableProject,
    ReadableWorkflowTaskId,
)
from api.services import SessionDep
from flows.units.job_files import read_log
from fractal_models.database import release
from fractal_models.errors import NotFoundError
from fractal_models.rights import find
from fractal_models.schemas import history as schemas
from fractal_models.schemas.base import Page
from fractal_models.schemas.dataset import ImagePageWithWarnings, ImageQuery
from fractal_models.tables import (
    DatasetV2,
    HistoryImageCache,
    HistoryRun,
    HistoryUnit,
    JobV2,
    TaskV2,
)

router = APIRouter(prefix="/api/v2/project/{project_id}/status", tags=["History"])


@router.get("/run/")
async def list_history_runs(
    dataset: ReadableDataset, workflowtask_id: ReadableWorkflowTaskId, session: SessionDep
) -> list[schemas.HistoryRunReadAggregated]:
    """The runs of the workflow task on the dataset, the oldest first."""
    unit_id, warns = col(HistoryUnit.id), col(HistoryUnit.has_warnings)
    counts = [
        func.count(unit_id).filter(col(HistoryUnit.status) == status).label(f"num_{status}_units")
        for status in get_args(schemas.UnitStatus)
    ]
    counts.append(func.count(unit_id).filter(warns).label("num_units_with_warnings"))
    columns = [
        col(HistoryRun.id),
        col(HistoryRun.timestamp_started),
        col(HistoryRun.workflowtask_dump),
        col(TaskV2.args_schema_parallel),
        col(TaskV2.args_schema_non_parallel),
        col(TaskV2.version),
    ]
    rows = await session.execute(
        select(*columns, *counts)
        .select_from(HistoryRun)
        .outerjoin(HistoryUnit, col(HistoryUnit.history_run_id) == col(HistoryRun.id))
        .outerjoin(TaskV2, col(TaskV2.id) == col(HistoryRun.task_id))
        .where(
            col(HistoryRun.dataset_id) == dataset.id,
            col(HistoryRun.workflowtask_id) == workflowtask_id,
        )
        .group_by(col(HistoryRun.id), col(TaskV2.id))
        .order_by(col(HistoryRun.id))
    )
    return [schemas.HistoryRunReadAggregated.model_validate(row) for row in rows]


@router.get("/run/{history_run_id}/units/", response_model=Page[schemas.HistoryUnitRead])
async def list_history_units(
    run: ReadableHistoryRun,
    session: SessionDep,
    paging: PagingDep,
    unit_status: schemas.UnitStatus | None = None,
) -> Response:
    """The units of a run, all or those of one status, in the order they were planned."""
    where = [HistoryUnit.history_run_id == run.id]
    if unit_status is not None:
        where.append(HistoryUnit.status == unit_status)
    units = select(HistoryUnit).where(*where).order_by(col(HistoryUnit.id))
    return await page_of(session, schemas.HistoryUnitRead, units, paging)


@router.post("/images/", response_model=ImagePageWithWarnings)
@only_reads
async def list_history_images(
    dataset: ReadableDataset,
    workflowtask_id: ReadableWorkflowTaskId,
    query: ImageQuery,
    session: SessionDep,
    paging: PagingDep,
    include_warnings: bool = False,
) -> Response:
    """The images that pass the filters; an attribute says how their latest unit ended.

    The attribute `__wftask_dataset_image_status__` is `submitted`, `done`, `failed`, or `unset` for
    an image on which the workflow task never ran. It can be filtered by like any other.
    """
    search = search_for(query, dataset.id, workflowtask_id)
    return await page_of_images(session, search, paging, include_warnings=include_warnings)


@router.get("/unit-log/")
async def read_unit_log(run: ReadableHistoryRun, history_unit_id: int, session: SessionDep) -> str:
    of_run = HistoryUnit.history_run_id == run.id
    unit = await find(session, HistoryUnit, history_unit_id, of_run)
    return await _log_of(session, unit)


@router.post("/image-log/")
@only_reads
async def read_image_log(
    request: schemas.ImageLogsRequest, project: ReadableProject, session: SessionDep
) -> str:
    """The log of the unit that ran last for a workflow task on an image."""
    cache, unit_id = HistoryImageCache, col(HistoryUnit.id)
    found = await session.exec(
        select(HistoryUnit)
        .join(cache, col(cache.latest_history_unit_id) == unit_id)
        .join(DatasetV2, col(DatasetV2.id) == col(cache.dataset_id))
        .where(
            DatasetV2.project_id == project.id,
            cache.dataset_id == request.dataset_id,
            cache.workflowtask_id == request.workflowtask_id,
            cache.zarr_url == request.zarr_url,
        )
    )
    if (unit := found.first()) is None:
        raise NotFoundError("A unit on image", request.zarr_url)
    return await _log_of(session, unit)


async def _log_of(session: AsyncSession, unit: HistoryUnit) -> str:
    if unit.logfile is None:
        return "This unit has no log."
    path = Path(unit.logfile)
    folder = await _folder_of(session, unit)
    await release(session)
    return await read_log(path, folder=folder)


async def _folder_of(session: AsyncSession, unit: HistoryUnit) -> Path | None:
    """The folder of the job that a unit belongs to; None if it has none that the unit is in."""
    found = await session.exec(
        select(JobV2.working_dir)
        .join(HistoryRun, col(HistoryRun.job_id) == col(JobV2.id))
        .where(HistoryRun.id == unit.history_run_id)
    )
    folder = found.first()
    if folder is None or not Path(unit.logfile or "").is_relative_to(folder):
        return None
    return Path(folder)
