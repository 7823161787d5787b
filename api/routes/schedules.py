"""Schedules: jobs that begin by themselves. All but whose they are is in Prefect."""

from fastapi import APIRouter, status

from api.rights import ExecutableProject, OwnSchedule, ReadableProject, ReadableSchedule
from api.services import EngineDep, SessionDep, VerifiedUser
from flows.schedules import changes, reading
from fractal_models.database import release
from fractal_models.schemas import schedule as schemas

router = APIRouter(prefix="/api/v2/project/{project_id}/schedule", tags=["Schedule"])


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
    return await changes.create_schedule(session, engine, user, project, wanted)


@router.get("/{schedule_id}/")
async def read_schedule(
    project: ReadableProject, schedule: ReadableSchedule, session: SessionDep, engine: EngineDep
) -> schemas.ScheduleReadWithOccurrences:
    """A schedule with its next times, and what became of the latest ones."""
    await release(session)
    return await reading.read_schedule(session, engine, project, schedule)


@router.patch("/{schedule_id}/")
async def update_schedule(
    wanted: schemas.ScheduleUpdate,
    project: ExecutableProject,
    schedule: OwnSchedule,
    session: SessionDep,
    engine: EngineDep,
) -> schemas.ScheduleReadWithOccurrences:
    """Change, pause or resume a schedule. It keeps its owner, with whose rights it runs."""
    return await changes.change_schedule(session, engine, project, schedule, wanted)


@router.delete("/{schedule_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_schedule(schedule: OwnSchedule, session: SessionDep, engine: EngineDep) -> None:
    """Delete a schedule; the jobs that it began stay, and one that runs goes on."""
    await changes.delete_schedule(session, engine, schedule)
