"""What becomes of task groups, by the wish of their owners and of administrators.

The answer is the activity, which tells how it goes on; one of an administrator is theirs.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, status

from api.rights import AnyTaskGroup, any_task_group, own_task_group
from api.services import LifecycleDep
from flows.activities.begin import Lifecycle
from fractal_models.schemas import task as schemas
from fractal_models.tables import TaskGroupV2

_ACCEPTED = status.HTTP_202_ACCEPTED
_OWN, _ANY = "/api/v2/task-group/{task_group_id}", "/admin/v2/task-group/{task_group_id}"

router = APIRouter(tags=["Task Lifecycle"])

_Step = Callable[[Lifecycle, TaskGroupV2], Awaitable[schemas.TaskGroupActivityRead]]


def _endpoint(step: _Step, group_with_right: Callable[..., Any]) -> Callable[..., Any]:
    async def begin(
        group: Annotated[TaskGroupV2, Depends(group_with_right)], lifecycle: LifecycleDep
    ) -> schemas.TaskGroupActivityRead:
        return await step(lifecycle, group)

    begin.__doc__ = step.__doc__
    return begin


for _step in (Lifecycle.deactivate, Lifecycle.reactivate, Lifecycle.delete):
    for _path, _right, _whose in ((_OWN, own_task_group, ""), (_ANY, any_task_group, "any_")):
        router.post(
            f"{_path}/{_step.__name__}/",
            status_code=_ACCEPTED,
            name=f"{_step.__name__}_{_whose}task_group",
        )(_endpoint(_step, _right))


@router.post(f"{_ANY}/reset/pip/", status_code=_ACCEPTED)
async def reset_task_group_pip(
    group: AnyTaskGroup, overrides: schemas.TaskGroupOverridesPip, lifecycle: LifecycleDep
) -> schemas.TaskGroupActivityRead:
    """Install the package of an inactive task group anew, with other choices, and activate it."""
    given = overrides.model_dump(mode="json", round_trip=True)
    origins = ("pypi", "wheel-file")
    return await lifecycle.reset(group, origins, overrides.python_version, overrides=given)


@router.post(f"{_ANY}/reset/pixi/", status_code=_ACCEPTED)
async def reset_task_group_pixi(
    group: AnyTaskGroup, overrides: schemas.TaskGroupOverridesPixi, lifecycle: LifecycleDep
) -> schemas.TaskGroupActivityRead:
    """Install the project of an inactive task group anew, and activate it."""
    return await lifecycle.reset(group, ("pixi",), **overrides.model_dump())
