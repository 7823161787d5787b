"""What each job asks the database, asked once before the processes of jobs are forked.

SQLAlchemy compiles a statement when it is executed for the first time, and finds out about
PostgreSQL when it connects for the first time. A process that is forked has both from here.
"""

import logging
from contextlib import suppress
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job.opening import claim
from flows.job.run import JobUnavailableError
from flows.records import jobs, runs
from flows.submission import profile_of
from fractal_models.database import keep_pool, open_database
from fractal_models.tables import DatasetV2, JobV2, ProjectV2, Resource

logger = logging.getLogger(__name__)

_NOBODY, _NOTHING = "", 0  # an email and an id that no row has
_NO_FLOW_RUN = FlowRun(id=UUID(int=0), flow_id=UUID(int=0), idempotency_key="job-0-")


async def rehearse(url: URL) -> None:
    """Ask for what is not there. If PostgreSQL is away, each process compiles for itself."""
    keep_pool(url)
    try:
        async with open_database(url) as sessions, sessions() as session:
            await _ask(session)
    except (SQLAlchemyError, OSError) as error:
        logger.warning("The statements of jobs are not compiled beforehand: %s", error)


async def _ask(session: AsyncSession) -> None:
    await jobs.job_of(session, _NO_FLOW_RUN.id)
    with suppress(JobUnavailableError):
        await claim(session, _NO_FLOW_RUN)
    for table in (JobV2, DatasetV2, ProjectV2, Resource):
        await session.get(table, _NOTHING)
    await profile_of(session, _NOBODY)
    await runs.runs_of_job(session, _NOTHING)
    await jobs.stop_reason(session, _NOTHING)
    await jobs.note_progress(session, _NOTHING)
    await jobs.end_job(session, _NOTHING, outcome="done", reason="")
