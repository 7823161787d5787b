"""Shows the plan of a job in the Prefect UI when it begins; the job does not wait for that."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flows.job.run import JobRun, runner_config
from flows.plans.job import Asked, plan
from flows.reports.artifacts import show_text
from flows.reports.plan import plan_as_markdown
from flows.reports.text import job_title
from flows.submission import profile_of
from fractal_models.database import one_moment
from fractal_models.schemas.plan import JobPlan
from fractal_models.tables import Resource

logger = logging.getLogger(__name__)

# The plan of a job that ends at once helps nobody.
_FIRST_SECONDS = 1.0


@contextmanager
def plan_shown(job: JobRun) -> Iterator[None]:
    """Show the plan while this block runs, if it runs long enough, and the job has just begun."""
    if job.recorded:
        yield
        return
    showing = asyncio.create_task(_show(job))
    try:
        yield
    finally:
        showing.cancel()


async def _show(job: JobRun) -> None:
    try:
        planned = await _plan(job)
        if planned is not None:
            text = plan_as_markdown(planned)
            await show_text("plan", f"job-{job.id}-plan", job_title(job.job), text, job.flow_run_id)
    except Exception:  # whatever it is, the job goes on
        logger.warning("The plan of job %s cannot be shown.", job.id, exc_info=True)


async def _plan(job: JobRun) -> JobPlan | None:
    """The plan of a job that begins; None if nobody is left as whom its units could run.

    It is made a second later, of what the database has now: what tasks did by then is not in it.
    """
    row = job.job
    async with job.session_aside() as session:
        await one_moment(session)
        resource = await session.get_one(Resource, job.resource_id)
        profile = await profile_of(session, row.user_email)
        if profile is None or row.dataset_id is None:
            return None
        asked = Asked(
            tasks=job.workflow_tasks,
            dataset_id=row.dataset_id,
            zarr_dir=job.zarr_dir,
            type_filters=row.type_filters,
            attribute_filters=row.attribute_filters,
            resource=resource,
            profile=profile,
            config=runner_config(resource),
            account=row.slurm_account,
            cache_dir=row.cache_dir,
            only_not_done=row.only_not_done,
        )
        await asyncio.sleep(_FIRST_SECONDS)
        return await plan(session, asked)
