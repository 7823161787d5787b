"""Resets of task groups by administrators: packages are installed anew, with other choices."""

from collections.abc import Container

from fastapi import APIRouter, Response, status
from sqlmodel.ext.asyncio.session import AsyncSession

from api.activities import begin
from api.dependencies import AnyTaskGroup, CurrentUser, EngineDep, SessionDep
from api.errors import unprocessable
from api.queries.activities import require_idle, require_installable
from fractal_models.schemas.task import (
    TaskGroupActivityRead,
    TaskGroupOverridesPip,
    TaskGroupOverridesPixi,
)
from fractal_models.tables import TaskGroupV2

router = APIRouter(prefix="/admin/v2/task-group/{task_group_id}/reset", tags=["Task Lifecycle"])


@router.post("/pip/")
async def reset_task_group_pip(
    group: AnyTaskGroup,
    overrides: TaskGroupOverridesPip,
    user: CurrentUser,
    session: SessionDep,
    engine: EngineDep,
    response: Response,
) -> TaskGroupActivityRead:
    """Install the package of an inactive task group anew, and activate it; see the activity."""
    await _require_ready(session, group, ("pypi", "wheel-file"), overrides.python_version)
    response.status_code = status.HTTP_202_ACCEPTED
    given = overrides.model_dump(mode="json", round_trip=True)
    return await begin(session, engine, group, user, "reset", overrides=given)


@router.post("/pixi/")
async def reset_task_group_pixi(
    group: AnyTaskGroup,
    overrides: TaskGroupOverridesPixi,
    user: CurrentUser,
    session: SessionDep,
    engine: EngineDep,
    response: Response,
) -> TaskGroupActivityRead:
    """Install the project of an inactive task group anew, and activate it; see the activity."""
    await _require_ready(session, group, ("pixi",))
    response.status_code = status.HTTP_202_ACCEPTED
    return await begin(session, engine, group, user, "reset", **overrides.model_dump())


async def _require_ready(
    session: AsyncSession,
    group: TaskGroupV2,
    origins: Container[str],
    python_version: str | None = None,
) -> None:
    await require_idle(session, group)
    if group.origin not in origins:
        raise unprocessable(
            f"Task group {group.id} is of origin {group.origin!r}, which cannot be reset in this "
            "way."
        )
    if group.active:
        raise unprocessable(f"Task group {group.id} is active: deactivate it first.")
    await require_installable(session, group, python_version or group.python_version)
