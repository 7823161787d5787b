"""The history of a dataset: runs of workflow tasks, their units, images and logs."""

from pathlib import Path

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.paging import Paging, page_of
from flows.units import CONVERTERS
from fractal_models.database import saved_id
from fractal_models.schemas.base import Page
from fractal_models.schemas.history import (
    HistoryRunReadAggregated,
    HistoryUnitRead,
    ImageLogsRequest,
    TaskStatusImages,
    TaskStatusSimple,
    UnitStatus,
)
from fractal_models.tables import (
    DatasetV2,
    HistoryImageCache,
    HistoryRun,
    HistoryUnit,
    JobV2,
    ProjectV2,
    TaskV2,
    WorkflowV2,
)

_STATUSES: tuple[UnitStatus, ...] = ("submitted", "done", "failed")


async def read_runs(
    session: AsyncSession, dataset_id: int | None, workflowtask_id: int
) -> list[HistoryRunReadAggregated]:
    """The runs of a workflow task on a dataset, the oldest first, with counts of their units."""
    unit_id, warns = col(HistoryUnit.id), col(HistoryUnit.has_warnings)
    counts = [
        func.count(unit_id).filter(col(HistoryUnit.status) == status).label(f"num_{status}_units")
        for status in _STATUSES
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
            col(HistoryRun.dataset_id) == dataset_id,
            col(HistoryRun.workflowtask_id) == workflowtask_id,
        )
        .group_by(col(HistoryRun.id), col(TaskV2.id))
        .order_by(col(HistoryRun.id))
    )
    return [HistoryRunReadAggregated.model_validate(row) for row in rows]


async def page_of_units(
    session: AsyncSession, run_id: int | None, status: UnitStatus | None, paging: Paging
) -> Page[HistoryUnitRead]:
    """The units of a run, all or those of one status, in the order they were planned."""
    where = [HistoryUnit.history_run_id == run_id]
    if status is not None:
        where.append(HistoryUnit.status == status)
    units = select(HistoryUnit).where(*where).order_by(col(HistoryUnit.id))
    return await page_of(session, units, paging, HistoryUnitRead.model_validate)


async def latest_unit_of_image(
    session: AsyncSession, project: ProjectV2, request: ImageLogsRequest
) -> HistoryUnit | None:
    """The unit that ran last for a workflow task on an image of a dataset of the project."""
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
    return found.first()


async def folder_of_unit(session: AsyncSession, unit: HistoryUnit) -> Path | None:
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


async def task_statuses(
    session: AsyncSession, workflow: WorkflowV2, dataset: DatasetV2
) -> dict[int, TaskStatusSimple | TaskStatusImages | None]:
    """By id of a workflow task, how it stands on a dataset; None where it never ran.

    Converters are given no images: they have a status only.
    """
    latest = await session.exec(
        select(HistoryRun)
        .where(HistoryRun.dataset_id == dataset.id)
        .distinct(col(HistoryRun.workflowtask_id))
        .order_by(col(HistoryRun.workflowtask_id), col(HistoryRun.id).desc())
    )
    runs = {run.workflowtask_id: run for run in latest}
    images = await _images_by_status(session, dataset)
    statuses: dict[int, TaskStatusSimple | TaskStatusImages | None] = {}
    for task in workflow.task_list:
        run = runs.get(task.id)
        if run is None:
            statuses[saved_id(task)] = None
        elif task.task_type in CONVERTERS:
            statuses[saved_id(task)] = TaskStatusSimple.model_validate(run)
        else:
            counts = images.get(task.id, {})
            statuses[saved_id(task)] = TaskStatusImages.model_validate(
                {"status": run.status, "num_available_images": run.num_available_images, **counts}
            )
    return statuses


async def _images_by_status(
    session: AsyncSession, dataset: DatasetV2
) -> dict[int | None, dict[str, int | bool]]:
    """By id of a workflow task, the number of images per status of their latest unit."""
    found = await session.exec(
        select(
            HistoryImageCache.workflowtask_id,
            HistoryUnit.status,
            func.count(),
            func.bool_or(HistoryUnit.has_warnings),
        )
        .join(HistoryUnit, col(HistoryUnit.id) == col(HistoryImageCache.latest_history_unit_id))
        .where(HistoryImageCache.dataset_id == dataset.id)
        .group_by(col(HistoryImageCache.workflowtask_id), col(HistoryUnit.status))
    )
    images: dict[int | None, dict[str, int | bool]] = {}
    for task_id, status, count, warns in found:
        counts = images.setdefault(task_id, {})
        counts[f"num_{status}_images"] = count
        counts["has_warnings"] = warns or counts.get("has_warnings", False)
    return images
