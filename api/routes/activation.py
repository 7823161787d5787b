"""Deactivation and reactivation of task groups, by their owners and by administrators."""

from fastapi import APIRouter, status
from sqlmodel.ext.asyncio.session import AsyncSession

from api.activities import begin
from api.dependencies import AnyTaskGroup, CurrentUser, EngineDep, OwnTaskGroup, SessionDep
from api.errors import unprocessable
from api.queries.activities import require_idle, require_repeatable
from api.queries.jobs import require_no_submitted_job_with
from flows.engine import Engine
from fractal_models.schemas.task import TaskGroupActivityRead
from fractal_models.tables import TaskGroupV2, UserOAuth

router = APIRouter(tags=["Task Lifecycle"])


@router.post("/api/v2/task-group/{task_group_id}/deactivate/", status_code=status.HTTP_202_ACCEPTED)
async def deactivate_task_group(
    group: OwnTaskGroup, user: CurrentUser, session: SessionDep, engine: EngineDep
) -> TaskGroupActivityRead:
    """Let no new job use a task group, and remove its environment; see the activity."""
    return await _deactivate(session, engine, group, user)


@router.post("/api/v2/task-group/{task_group_id}/reactivate/", status_code=status.HTTP_202_ACCEPTED)
async def reactivate_task_group(
    group: OwnTaskGroup, user: CurrentUser, session: SessionDep, engine: EngineDep
) -> TaskGroupActivityRead:
    """Make the environment of a task group again, then let jobs use it; see the activity."""
    return await _reactivate(session, engine, group, user)


@router.post(
    "/admin/v2/task-group/{task_group_id}/deactivate/", status_code=status.HTTP_202_ACCEPTED
)
async def deactivate_any_task_group(
    group: AnyTaskGroup, user: CurrentUser, session: SessionDep, engine: EngineDep
) -> TaskGroupActivityRead:
    """Deactivate a task group of whoever; the activity is the administrator's."""
    return await _deactivate(session, engine, group, user)


@router.post(
    "/admin/v2/task-group/{task_group_id}/reactivate/", status_code=status.HTTP_202_ACCEPTED
)
async def reactivate_any_task_group(
    group: AnyTaskGroup, user: CurrentUser, session: SessionDep, engine: EngineDep
) -> TaskGroupActivityRead:
    """Reactivate a task group of whoever; the activity is the administrator's."""
    return await _reactivate(session, engine, group, user)


async def _deactivate(
    session: AsyncSession, engine: Engine, group: TaskGroupV2, user: UserOAuth
) -> TaskGroupActivityRead:
    await require_idle(session, group)
    if not group.active:
        raise unprocessable(f"Task group {group.id} is inactive already.")
    await require_no_submitted_job_with(session, group)
    await require_repeatable(session, group)
    return await begin(session, engine, group, user, "deactivate")


async def _reactivate(
    session: AsyncSession, engine: Engine, group: TaskGroupV2, user: UserOAuth
) -> TaskGroupActivityRead:
    await require_idle(session, group)
    if group.active:
        raise unprocessable(f"Task group {group.id} is active already.")
    await require_repeatable(session, group)
    return await begin(session, engine, group, user, "reactivate")
