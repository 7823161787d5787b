"""What was done to a dataset by a workflow task: runs, units, images, logs."""

from pathlib import Path

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import (
    ReadableDataset,
    ReadableHistoryRun,
    ReadableProject,
    ReadableWorkflowTaskId,
    SessionDep,
)
from api.documents import JsonDocument
from api.logs import read_log
from api.paging import PagingDep
from api.queries.history import (
    folder_of_unit,
    latest_unit_of_image,
    page_of_units,
    read_runs,
)
from api.queries.images import page_of_images_with_status
from fractal_models.database import release
from fractal_models.errors import NotFoundError
from fractal_models.schemas.base import Page
from fractal_models.schemas.dataset import ImagePageWithWarnings, ImageQuery
from fractal_models.schemas.history import (
    HistoryRunReadAggregated,
    HistoryUnitRead,
    ImageLogsRequest,
    UnitStatus,
)
from fractal_models.tables import HistoryUnit

router = APIRouter(prefix="/api/v2/project/{project_id}/status", tags=["History"])


@router.get("/run/")
async def list_history_runs(
    dataset: ReadableDataset, workflowtask_id: ReadableWorkflowTaskId, session: SessionDep
) -> list[HistoryRunReadAggregated]:
    """The runs of the workflow task on the dataset, the oldest first."""
    return await read_runs(session, dataset.id, workflowtask_id)


@router.get("/run/{history_run_id}/units/")
async def list_history_units(
    run: ReadableHistoryRun,
    session: SessionDep,
    paging: PagingDep,
    unit_status: UnitStatus | None = None,
) -> Page[HistoryUnitRead]:
    return await page_of_units(session, run.id, unit_status, paging)


@router.post("/images/", response_model=ImagePageWithWarnings)
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
    page = await page_of_images_with_status(
        session, dataset.id, workflowtask_id, query, paging, include_warnings=include_warnings
    )
    return JsonDocument(page)


@router.get("/unit-log/")
async def read_unit_log(run: ReadableHistoryRun, history_unit_id: int, session: SessionDep) -> str:
    unit = await session.get(HistoryUnit, history_unit_id)
    if unit is None or unit.history_run_id != run.id:
        raise NotFoundError("History unit", history_unit_id)
    return await _log_of(session, unit)


@router.post("/image-log/")
async def read_image_log(
    request: ImageLogsRequest, project: ReadableProject, session: SessionDep
) -> str:
    """The log of the unit that ran last for a workflow task on an image."""
    unit = await latest_unit_of_image(session, project, request)
    if unit is None:
        raise NotFoundError("A unit on image", request.zarr_url)
    return await _log_of(session, unit)


async def _log_of(session: AsyncSession, unit: HistoryUnit) -> str:
    if unit.logfile is None:
        return "This unit has no log."
    path = Path(unit.logfile)
    folder = await folder_of_unit(session, unit)
    await release(session)
    return await read_log(path, folder=folder)
