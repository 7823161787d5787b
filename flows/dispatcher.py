"""Jobs that were submitted while Prefect was away get their flow runs."""

import logging
from datetime import timedelta

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine import Engine
from fractal_models.tables import JobV2, ProjectV2, Resource
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

# The API makes a flow run itself, right after the job.
_TIME_OF_API = timedelta(seconds=10)


async def dispatch_waiting_jobs(
    session: AsyncSession, engine: Engine, resource_name: str
) -> list[int]:
    """Make the flow runs of a resource's submitted jobs that have none; the ids of these jobs.

    Raises:
        EngineUnavailableError: Prefect does not answer; what was made before that is committed.
    """
    waiting = await session.exec(
        select(JobV2)
        .join(ProjectV2, col(ProjectV2.id) == col(JobV2.project_id))
        .join(Resource, col(Resource.id) == col(ProjectV2.resource_id))
        .where(
            JobV2.status == "submitted",
            col(JobV2.flow_run_id).is_(None),
            JobV2.start_timestamp < now() - _TIME_OF_API,
            Resource.name == resource_name,
        )
        .order_by(col(JobV2.id))
    )
    dispatched = []
    for job in waiting.all():
        job.flow_run_id = await engine.submit_job(job, resource_name)
        await session.commit()
        logger.info("Job %s, which waited for Prefect, has its flow run.", job.id)
        dispatched.append(job.id or 0)
    return dispatched
