"""Deletion of task groups, by their owners and by administrators."""

from fastapi import APIRouter, status
from sqlmodel.ext.asyncio.session import AsyncSession

from api.activities import begin
from api.dependencies import AnyTaskGroup, CurrentUser, EngineDep, OwnTaskGroup, SessionDep
from api.queries.activities import require_idle
from api.queries.jobs import require_no_submitted_job_with
from api.queries.task_groups import require_unused
from flows.engine import Engine
from fractal_models.schemas.task import TaskGroupActivityRead
from fractal_models.tables import TaskGroupV2, UserOAuth

router = APIRouter(tags=["Task Lifecycle"])


@router.post("/api/v2/task-group/{task_group_id}/delete/", status_code=status.HTTP_202_ACCEPTED)
async def delete_task_group(
    group: OwnTaskGroup, user: CurrentUser, session: SessionDep, engine: EngineDep
) -> TaskGroupActivityRead:
    """Delete a task group with its environment; see the activity, which stays."""
    return await _delete(session, engine, group, user)


@router.post("/admin/v2/task-group/{task_group_id}/delete/", status_code=status.HTTP_202_ACCEPTED)
async def delete_any_task_group(
    group: AnyTaskGroup, user: CurrentUser, session: SessionDep, engine: EngineDep
) -> TaskGroupActivityRead:
    """Delete a task group of whoever; the activity is the administrator's."""
    return await _delete(session, engine, group, user)


async def _delete(
    session: AsyncSession, engine: Engine, group: TaskGroupV2, user: UserOAuth
) -> TaskGroupActivityRead:
    await require_idle(session, group)
    await require_no_submitted_job_with(session, group)
    await require_unused(session, group)
    return await begin(session, engine, group, user, "delete")
