"""Schedules: jobs that begin by themselves. All but whose they are is in Prefect."""

import re
import secrets

from fastapi import APIRouter, status

from api.rights import ExecutableProject, OwnSchedule, ReadableProject, ReadableSchedule
from api.services import EngineDep, SessionDep, VerifiedUser
from flows.schedules import reading
from flows.schedules.deployments import ScheduleDeployments
from flows.schedules.plan import require_end, runnable
from flows.schedules.times import to_prefect
from fractal_models.database import release, saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas import schedule as schemas
from fractal_models.tables import Schedule, UserOAuth

router = APIRouter(prefix="/api/v2/project/{project_id}/schedule", tags=["Schedule"])

_NOT_IN_NAMES = re.compile(r"[/%&<>]")


@router.get("/")
async def list_schedules(
    project: ReadableProject, session: SessionDep, engine: EngineDep
) -> list[schemas.ScheduleRead]:
    """The schedules of a project; what became of them is told of each alone."""
    return await reading.read_schedules(session, engine, project)


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_schedule(
    wanted: schemas.ScheduleCreate,
    user: VerifiedUser,
    project: ExecutableProject,
    session: SessionDep,
    engine: EngineDep,
) -> schemas.ScheduleReadWithOccurrences:
    """Have a workflow run on a dataset at times, or after another job, with the user's rights."""
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
        after_workflow_id=wanted.after.workflow_id if wanted.after else None,
        after_dataset_id=wanted.after.dataset_id if wanted.after else None,
        deployment_name=f"{_NOT_IN_NAMES.sub('-', title)} · {secrets.token_hex(4)}",
    )
    session.add(schedule)
    await session.commit()  # first, so that no deployment is without a row
    plan = job.plan(schedule, times, after=wanted.after, active=wanted.active)
    created = await ScheduleDeployments(engine).create(schedule.deployment_name, plan)
    schedule.deployment_id, schedule.automation_id = created
    answer = await reading.read_schedule(session, engine, project, schedule)
    await session.commit()  # last: until then it begins no job, and is cleared away
    return answer


@router.get("/{schedule_id}/")
async def read_schedule(
    project: ReadableProject, schedule: ReadableSchedule, session: SessionDep, engine: EngineDep
) -> schemas.ScheduleReadWithOccurrences:
    """A schedule with its next times, and what became of the latest ones."""
    await release(session)
    return await reading.read_schedule(session, engine, project, schedule)


@router.patch("/{schedule_id}/")
async def update_schedule(
    changes: schemas.ScheduleUpdate,
    project: ExecutableProject,
    schedule: OwnSchedule,
    session: SessionDep,
    engine: EngineDep,
) -> schemas.ScheduleReadWithOccurrences:
    """Change, pause or resume a schedule. It keeps its owner, with whose rights it runs."""
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
        after = changes.after
        schedule.after_workflow_id = after.workflow_id if after else None
        schedule.after_dataset_id = after.dataset_id if after else None
    await release(session)
    return await reading.read_schedule(session, engine, project, schedule)


@router.delete("/{schedule_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_schedule(schedule: OwnSchedule, session: SessionDep, engine: EngineDep) -> None:
    """Delete a schedule; the jobs that it began stay, and one that runs goes on."""
    await release(session)
    if schedule.deployment_id is not None:
        await ScheduleDeployments(engine).delete(schedule.deployment_id)
    await session.delete(schedule)
    await session.commit()
