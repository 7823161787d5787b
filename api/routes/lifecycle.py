"""What becomes of task groups, by the wish of their owners and of administrators.

The answer is the activity, which tells how it goes on; one of an administrator is theirs.
"""

from fastapi import APIRouter, status

from api.dependencies import AnyTaskGroup, LifecycleDep, OwnTaskGroup
from fractal_models.schemas.task import (
    TaskGroupActivityRead,
    TaskGroupOverridesPip,
    TaskGroupOverridesPixi,
)

_ACCEPTED = status.HTTP_202_ACCEPTED
_OWN, _ANY = "/api/v2/task-group/{task_group_id}", "/admin/v2/task-group/{task_group_id}"

router = APIRouter(tags=["Task Lifecycle"])


@router.post(f"{_OWN}/deactivate/", status_code=_ACCEPTED)
async def deactivate_task_group(
    group: OwnTaskGroup, lifecycle: LifecycleDep
) -> TaskGroupActivityRead:
    """Let no new job use a task group, and remove its environment."""
    return await lifecycle.deactivate(group)


@router.post(f"{_OWN}/reactivate/", status_code=_ACCEPTED)
async def reactivate_task_group(
    group: OwnTaskGroup, lifecycle: LifecycleDep
) -> TaskGroupActivityRead:
    """Make the environment of a task group again, then let jobs use it."""
    return await lifecycle.reactivate(group)


@router.post(f"{_OWN}/delete/", status_code=_ACCEPTED)
async def delete_task_group(group: OwnTaskGroup, lifecycle: LifecycleDep) -> TaskGroupActivityRead:
    """Delete a task group that nothing uses, with its environment. The activity stays."""
    return await lifecycle.delete(group)


@router.post(f"{_ANY}/deactivate/", status_code=_ACCEPTED)
async def deactivate_any_task_group(
    group: AnyTaskGroup, lifecycle: LifecycleDep
) -> TaskGroupActivityRead:
    """Deactivate a task group, whoever it belongs to."""
    return await lifecycle.deactivate(group)


@router.post(f"{_ANY}/reactivate/", status_code=_ACCEPTED)
async def reactivate_any_task_group(
    group: AnyTaskGroup, lifecycle: LifecycleDep
) -> TaskGroupActivityRead:
    """Reactivate a task group, whoever it belongs to."""
    return await lifecycle.reactivate(group)


@router.post(f"{_ANY}/delete/", status_code=_ACCEPTED)
async def delete_any_task_group(
    group: AnyTaskGroup, lifecycle: LifecycleDep
) -> TaskGroupActivityRead:
    """Delete a task group, whoever it belongs to."""
    return await lifecycle.delete(group)


@router.post(f"{_ANY}/reset/pip/", status_code=_ACCEPTED)
async def reset_task_group_pip(
    group: AnyTaskGroup, overrides: TaskGroupOverridesPip, lifecycle: LifecycleDep
) -> TaskGroupActivityRead:
    """Install the package of an inactive task group anew, with other choices, and activate it."""
    given = overrides.model_dump(mode="json", round_trip=True)
    origins = ("pypi", "wheel-file")
    return await lifecycle.reset(group, origins, overrides.python_version, overrides=given)


@router.post(f"{_ANY}/reset/pixi/", status_code=_ACCEPTED)
async def reset_task_group_pixi(
    group: AnyTaskGroup, overrides: TaskGroupOverridesPixi, lifecycle: LifecycleDep
) -> TaskGroupActivityRead:
    """Install the project of an inactive task group anew, and activate it."""
    return await lifecycle.reset(group, ("pixi",), **overrides.model_dump())
