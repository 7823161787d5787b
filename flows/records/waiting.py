"""SQL of what waits in a work pool for its process."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, bindparam, text
from sqlalchemy import UUID as SQL_UUID
from sqlmodel.ext.asyncio.session import AsyncSession

_WAITS = text(
    """
    SELECT EXISTS (
        SELECT FROM jobv2
        JOIN projectv2 ON projectv2.id = jobv2.project_id
        JOIN resource ON resource.id = projectv2.resource_id
        WHERE jobv2.status = 'submitted' AND resource.work_pool = :pool
            AND coalesce(jobv2.flow_run_id <> ALL(:executing), true)
    ) OR EXISTS (
        SELECT FROM taskgroupactivityv2 AS activity
        JOIN taskgroupv2 ON taskgroupv2.id = activity.taskgroupv2_id
        JOIN resource ON resource.id = taskgroupv2.resource_id
        WHERE activity.status = 'pending' AND resource.work_pool = :pool
    )
    """
).bindparams(bindparam("executing", type_=ARRAY(SQL_UUID)))


async def something_waits(session: AsyncSession, pool: str, executing: Collection[UUID]) -> bool:
    """Whether a job or an activity has been asked for whose process has not begun.

    `executing` are the flow runs that have a process.
    """
    found = await session.execute(_WAITS, {"pool": pool, "executing": list(executing)})
    return bool(found.scalar())
