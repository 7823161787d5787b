"""Makes, changes and deletes schedules, as people ask for it: their rows, and what Prefect has."""

import re
import secrets

from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.schedules import reading
from flows.schedules.deployments import ScheduleDeployments
from flows.schedules.plan import require_end, runnable
from flows.schedules.times import to_prefect
from fractal_models.database import release, saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.schedule import (
    After,
    ScheduleCreate,
    ScheduleReadWithOccurrences,
    ScheduleUpdate,
)
from fractal_models.tables import ProjectV2, Schedule, UserOAuth

_NOT_IN_NAMES = re.compile(r"[/%&<>]")


async def create_schedule(
    session: AsyncSession,
    engine: Engine,
    user: UserOAuth,
    project: ProjectV2,
    wanted: ScheduleCreate,
) -> ScheduleReadWithOccurrences:
    """Commit a new schedule of a user, after the checks of its job.

    Raises:
        NotFoundError, JobRefusedError: the job could not run, or not after what it waits for.
        EngineUnavailableError: Prefect does not answer. What was made is cleared away.
    """
    times = None if wanted.when is None else to_prefect(wanted.when)
    job = await runnable(session, user, project, wanted)
    if wanted.after is not None:
        await require_end(session, project, None, wanted, wanted.after)
    title = wanted.name or f"{project.name} · {job.workflow.name}"
    schedule = Schedule(
        project_id=project.id,
        user_id=saved_id(user),
        workflow_id=wanted.workflow_id,
        dataset_id=wanted.dataset_id,
        deployment_name=f"{_NOT_IN_NAMES.sub('-', title)} · {secrets.token_hex(4)}",
    )
    _let_wait(schedule, wanted.after)
    session.add(schedule)
    await session.commit()  # first, so that no deployment is without a row
    plan = job.plan(schedule, times, after=wanted.after, active=wanted.active)
    created = await ScheduleDeployments(engine).create(schedule.deployment_name, plan)
    schedule.deployment_id, schedule.automation_id = created
    answer = await reading.read_schedule(session, engine, project, schedule)
    await session.commit()  # last: until then it begins no job, and is cleared away
    return answer


async def change_schedule(
    session: AsyncSession,
    engine: Engine,
    project: ProjectV2,
    schedule: Schedule,
    changes: ScheduleUpdate,
) -> ScheduleReadWithOccurrences:
    """Commit changes of a schedule, which keeps its owner; after the checks of its job.

    Raises:
        NotFoundError, RefusedError: its job could not run, or nothing would begin it any more.
        EngineUnavailableError: Prefect does not answer; nothing was changed.
    """
    await release(session)
    found = await reading.in_prefect(engine, schedule)
    given = changes.given()
    if given == {"active": False}:
        await ScheduleDeployments(engine).switch(found, active=False)
        return await reading.read_schedule(session, engine, project, schedule)
    times = None if changes.when is None else to_prefect(changes.when)
    owner = await session.get_one(UserOAuth, schedule.user_id)
    wanted = await reading.changed_job(session, project, found, given)
    job = await runnable(session, owner, project, wanted)
    if changes.after is not None:
        await require_end(session, project, schedule.id, wanted, changes.after)
    active = changes.active if "active" in given else not found.paused
    if not (changes.when or changes.after or found.automation or found.when):
        raise RefusedError("Nothing begins it any more: give when or after.")
    await release(session)
    if active:
        schedule.notice, schedule.is_told = None, True
    plan = job.plan(schedule, times, after=changes.after, active=active)
    schedule.automation_id = await ScheduleDeployments(engine).change(found, plan)
    schedule.workflow_id, schedule.dataset_id = wanted.workflow_id, wanted.dataset_id
    if plan.begins_anew:
        _let_wait(schedule, changes.after)
    await release(session)
    return await reading.read_schedule(session, engine, project, schedule)


async def delete_schedule(session: AsyncSession, engine: Engine, schedule: Schedule) -> None:
    """Commit that a schedule is deleted, in Prefect first; the jobs that it began stay."""
    await release(session)
    if schedule.deployment_id is not None:
        await ScheduleDeployments(engine).delete(schedule.deployment_id)
    await session.delete(schedule)
    await session.commit()


def _let_wait(schedule: Schedule, after: After | None) -> None:
    """Have a schedule wait for a job, or for none."""
    schedule.after_workflow_id = after.workflow_id if after else None
    schedule.after_dataset_id = after.dataset_id if after else None
