"""SQL that reads the statuses of a workflow's tasks on a dataset."""

from typing import Any

from sqlalchemy import Integer, Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.units.plan import COMPOUND, CONVERTERS
from fractal_models.database import saved_id
from fractal_models.schemas.history import (
    TaskStatusImages,
    TaskStatusSimple,
)
from fractal_models.tables import (
    DatasetV2,
    WorkflowV2,
)

# Task types whose warnings belong to a unit as a whole, not to a single image.
_AS_A_WHOLE = COMPOUND | CONVERTERS


async def task_statuses(
    session: AsyncSession, workflow: WorkflowV2, dataset: DatasetV2
) -> dict[int, TaskStatusSimple | TaskStatusImages | None]:
    """The statuses of a workflow's tasks on a dataset, by their ids; None for a task that never
    ran.

    Tasks that the running job has not begun yet are `submitted`, whatever their earlier status was.
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
    if row.num_listed_images > row.num_available_images:  # it ran on other images before
        status.num_available_images = None
    return status


# A retried job runs again the tasks that had failed before the retry.
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
