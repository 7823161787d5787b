"""The history of a dataset: runs of workflow tasks, their units, images and logs."""

from pathlib import Path
from typing import Any

from sqlalchemy import Integer, Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.paging import Paging, page_of
from flows.units.plan import COMPOUND, CONVERTERS
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

# Task types of which units have warnings that are not those of an image.
_AS_A_WHOLE = COMPOUND | CONVERTERS


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

    Tasks that the running job has not begun yet are submitted, whatever they made of it before.
    """
    types = {saved_id(task): task.task_type for task in workflow.task_list}
    found = await session.execute(
        _TASK_STATUSES,
        {
            "dataset_id": dataset.id,
            "workflow_id": workflow.id,
            "workflowtask_ids": list(types),
            "warned_as_a_whole": [id_ for id_, type_ in types.items() if type_ in _AS_A_WHOLE],
        },
    )
    return {row.workflowtask_id: _task_status(row) for row in found}


def _task_status(row: Row[Any]) -> TaskStatusSimple | TaskStatusImages | None:
    if row.status is None:
        return TaskStatusSimple(status="submitted") if row.waits else None
    status = TaskStatusImages.model_validate(row)
    if row.waits:
        status.status = "submitted"
    if row.num_listed_images > row.num_available_images:  # it ran on others before
        status.num_available_images = None
    return status


# A job that was retried runs those again that had failed by then.
_TASK_STATUSES = text(
    """
    WITH latest AS (
        SELECT DISTINCT ON (workflowtask_id)
            workflowtask_id, id AS run_id, job_id, status, num_available_images
        FROM historyrun
        WHERE dataset_id = :dataset_id AND workflowtask_id = ANY(:workflowtask_ids)
        ORDER BY workflowtask_id, id DESC
    ),
    images AS (
        SELECT cache.workflowtask_id, unit.history_run_id AS run_id, count(*) AS listed,
            count(*) FILTER (WHERE unit.status = 'submitted') AS submitted,
            count(*) FILTER (WHERE unit.status = 'done') AS done,
            count(*) FILTER (WHERE unit.status = 'failed') AS failed,
            bool_or(unit.has_warnings) AS warned
        FROM historyimagecache AS cache
        JOIN historyunit AS unit ON unit.id = cache.latest_history_unit_id
        WHERE cache.dataset_id = :dataset_id AND cache.workflowtask_id = ANY(:workflowtask_ids)
        GROUP BY cache.workflowtask_id, unit.history_run_id
    ),
    counted AS (
        SELECT workflowtask_id, sum(listed)::int AS listed, sum(submitted)::int AS submitted,
            sum(done)::int AS done, sum(failed)::int AS failed, bool_or(warned) AS warned
        FROM images GROUP BY workflowtask_id
    ),
    warned_runs AS (
        SELECT DISTINCT runs.workflowtask_id
        FROM (SELECT workflowtask_id, run_id FROM latest
              UNION SELECT workflowtask_id, run_id FROM images) AS runs
        JOIN historyunit AS unit ON unit.history_run_id = runs.run_id
        WHERE unit.has_warnings AND runs.workflowtask_id = ANY(:warned_as_a_whole)
    ),
    running AS (
        SELECT id AS job_id, coalesce(retried_after, 0) AS retried_after,
            CAST(task->>'id' AS int) AS workflowtask_id
        FROM jobv2, jsonb_array_elements(workflow_dump->'task_list') AS task
        WHERE dataset_id = :dataset_id AND workflow_id = :workflow_id AND status = 'submitted'
    )
    SELECT listed.workflowtask_id, latest.status, latest.num_available_images,
        coalesce(counted.listed, 0) AS num_listed_images,
        coalesce(counted.submitted, 0) AS num_submitted_images,
        coalesce(counted.done, 0) AS num_done_images,
        coalesce(counted.failed, 0) AS num_failed_images,
        coalesce(counted.warned, false) OR warned_runs.workflowtask_id IS NOT NULL AS has_warnings,
        running.job_id IS NOT NULL AND (
            latest.job_id IS DISTINCT FROM running.job_id
            OR latest.status = 'failed' AND latest.run_id <= running.retried_after
        ) AS waits
    FROM unnest(:workflowtask_ids) WITH ORDINALITY AS listed(workflowtask_id, place)
    LEFT JOIN latest USING (workflowtask_id)
    LEFT JOIN counted USING (workflowtask_id)
    LEFT JOIN warned_runs USING (workflowtask_id)
    LEFT JOIN running USING (workflowtask_id)
    ORDER BY listed.place
    """
).bindparams(
    bindparam("workflowtask_ids", type_=ARRAY(Integer)),
    bindparam("warned_as_a_whole", type_=ARRAY(Integer)),
)
