"""Which tasks are core, as administrators decide."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, Field, NonNegativeInt

from api.dependencies import AnyTaskGroup, SessionDep, Superuser
from api.queries.core_tasks import make_core, make_not_core
from fractal_models.database import saved_id
from fractal_models.schemas.base import unique

router = APIRouter(prefix="/admin/v2", tags=["Task"])

_TaskIds = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(unique)]


@router.post("/task/make-core/")
async def make_tasks_core(task_ids: _TaskIds, _: Superuser, session: SessionDep) -> None:
    await make_core(session, task_ids)


@router.post("/task/make-not-core/")
async def make_tasks_not_core(task_ids: _TaskIds, _: Superuser, session: SessionDep) -> None:
    await make_not_core(session, task_ids)


@router.post("/task-group/{task_group_id}/make-core/")
async def make_task_group_core(group: AnyTaskGroup, session: SessionDep) -> None:
    """Make all tasks of a task group core."""
    await make_core(session, [saved_id(task) for task in group.task_list])


@router.post("/task-group/{task_group_id}/make-not-core/")
async def make_task_group_not_core(group: AnyTaskGroup, session: SessionDep) -> None:
    """Make all tasks of a task group not core."""
    await make_not_core(session, [saved_id(task) for task in group.task_list])
