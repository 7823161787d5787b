"""SQL of what waits for a worker: to get a process, or to have its process told to stop."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, bindparam, text
from sqlalchemy import UUID as SQL_UUID
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import JobV2

# Jobs and activities of a work pool that have not ended; both parts take a further condition.
_OPEN = """
    SELECT EXISTS (
        SELECT FROM jobv2
        JOIN projectv2 ON projectv2.id = jobv2.project_id
        JOIN resource ON resource.id = projectv2.resource_id
        WHERE jobv2.status = 'submitted' AND resource.work_pool = :pool
            AND {jobs}
    ) OR EXISTS (
        SELECT FROM taskgroupactivityv2 AS activity
        JOIN taskgroupv2 ON taskgroupv2.id = activity.taskgroupv2_id
        JOIN resource ON resource.id = taskgroupv2.resource_id
        WHERE activity.status IN ('pending', 'ongoing') AND resource.work_pool = :pool
            AND {activities}
    )
    """

_WAITS = text(
    _OPEN.format(
        jobs="coalesce(jobv2.flow_run_id <> ALL(:executing), true)",
        activities="activity.status = 'pending'",
    )
).bindparams(bindparam("executing", type_=ARRAY(SQL_UUID)))

_OTHERS = text(
    _OPEN.format(
        jobs="jobv2.flow_run_id IS DISTINCT FROM :flow_run_id",
        activities="activity.flow_run_id IS DISTINCT FROM :flow_run_id",
    )
).bindparams(bindparam("flow_run_id", type_=SQL_UUID))


async def something_waits(session: AsyncSession, pool: str, executing: Collection[UUID]) -> bool:
    """Whether a job or an activity has been asked for whose process has not begun.

    `executing` are the flow runs that have a process.
    """
    found = await session.execute(_WAITS, {"pool": pool, "executing": list(executing)})
    return bool(found.scalar())


async def others_are_open(session: AsyncSession, pool: str, flow_run_id: UUID) -> bool:
    """Whether a job or an activity has not ended that is not of this flow run."""
    found = await session.execute(_OTHERS, {"pool": pool, "flow_run_id": flow_run_id})
    return bool(found.scalar())


async def some_are_to_stop(session: AsyncSession, executing: Collection[UUID]) -> bool:
    """Whether one of these flow runs is of a job that somebody has told to stop."""
    found = await session.exec(
        select(JobV2.id)
        .where(
            JobV2.status == "submitted",
            col(JobV2.stop_reason).is_not(None),
            col(JobV2.flow_run_id).in_(list(executing)),
        )
        .limit(1)
    )
    return found.first() is not None
