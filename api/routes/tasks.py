"""Single tasks, and which of them are core."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Response, status
from pydantic import Field
from sqlmodel import col, select

from api.errors import Refusal
from api.lists import READER, PagingDep, filters, list_document, page_of
from api.queries.task_uses import TaskFilters
from api.readers import VerifiedReader
from api.rights import AnyTaskGroup, NewOwner, OwnTask, ReadableTask
from api.services import Contributor, SessionDep, Superuser
from flows.activities.new_groups import require_new
from fractal_models.core_tasks import make_core, make_not_core
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.rights import visible_to
from fractal_models.schemas.base import Page, UniqueIds
from fractal_models.schemas.task import TaskCreate, TaskInfo, TaskRead, TaskReadSlim, TaskUpdate
from fractal_models.tables import TaskGroupV2, TaskV2

router = APIRouter(tags=["Task"])

_TaskIds = Annotated[UniqueIds, Field(min_length=1)]

_OF_PACKAGE = {"command_non_parallel", "command_parallel", "input_types", "output_types"}


_VISIBLE = list_document(
    TaskReadSlim,
    select(TaskV2)
    .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
    .where(visible_to(READER))
    .order_by(col(TaskV2.id)),
)


@router.get("/api/v2/task/", response_model=list[TaskReadSlim])
async def list_tasks(reader: VerifiedReader) -> Response:
    """The user's own tasks and those shared with them."""
    return await reader.answer(_VISIBLE)


@router.post("/api/v2/task/", status_code=status.HTTP_201_CREATED)
async def create_task(request: TaskCreate, owner: NewOwner, session: SessionDep) -> TaskRead:
    """Make a task of given commands, in a task group of its own."""
    group = owner.group(origin="other", pkg_name=request.name, version=request.version)
    await require_new(session, group)
    task = TaskV2(**request.model_dump(exclude_none=True))
    group.task_list = [task]
    session.add(group)
    await session.commit()
    return TaskRead.model_validate(task)


@router.get("/api/v2/task/{task_id}/")
async def read_task(task: ReadableTask) -> TaskRead:
    return TaskRead.model_validate(task)


@router.patch("/api/v2/task/{task_id}/")
async def update_task(task: OwnTask, changes: TaskUpdate, session: SessionDep) -> TaskRead:
    group = await session.get_one(TaskGroupV2, task.taskgroupv2_id)
    if group.origin != "other" and (fixed := _OF_PACKAGE & changes.model_fields_set):
        raise RefusedError(
            f"Task {task.id} is part of {group.pkg_name} {group.version}, which says its "
            f"{' and '.join(sorted(fixed))}."
        )
    for field in ("command_non_parallel", "command_parallel"):
        has = getattr(task, field) is not None
        if field in changes.model_fields_set and has != (getattr(changes, field) is not None):
            raise RefusedError(
                f"A {task.type} task {'needs its' if has else 'has no'} {field}: "
                "the type of a task cannot be changed."
            )
    given = changes.given()
    if given.get("tags", []) is None:
        given["tags"] = []
    task.sqlmodel_update(given)
    await session.commit()
    return TaskRead.model_validate(task)


@router.delete(
    "/api/v2/task/{task_id}/",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={405: {"model": Refusal, "description": "Always"}},
)
async def delete_task(task_id: int, _: Contributor) -> None:
    """Refused: a task is deleted with its task group, which is left unusable otherwise."""
    raise HTTPException(
        status.HTTP_405_METHOD_NOT_ALLOWED,
        f"Task {task_id} cannot be deleted alone: delete its task group.",
    )


@router.get("/admin/v2/task/", response_model=Page[TaskInfo])
async def list_all_tasks(
    chosen: Annotated[TaskFilters, filters(TaskFilters)],
    paging: PagingDep,
    _: Superuser,
    session: SessionDep,
) -> Response:
    """The tasks of all users, each with the workflows that use it."""
    return await page_of(session, TaskInfo, chosen.query(), paging)


# --- for administrators: which tasks are core, as they recommend them ---------------------------


@router.post("/admin/v2/task/make-core/")
async def make_tasks_core(task_ids: _TaskIds, _: Superuser, session: SessionDep) -> None:
    await make_core(session, task_ids)
    await session.commit()


@router.post("/admin/v2/task/make-not-core/")
async def make_tasks_not_core(task_ids: _TaskIds, _: Superuser, session: SessionDep) -> None:
    await make_not_core(session, task_ids)
    await session.commit()


@router.post("/admin/v2/task-group/{task_group_id}/make-core/")
async def make_task_group_core(group: AnyTaskGroup, session: SessionDep) -> None:
    """Make all tasks of a task group core."""
    await make_core(session, [saved_id(task) for task in group.task_list])
    await session.commit()


@router.post("/admin/v2/task-group/{task_group_id}/make-not-core/")
async def make_task_group_not_core(group: AnyTaskGroup, session: SessionDep) -> None:
    """Make all tasks of a task group not core."""
    await make_not_core(session, [saved_id(task) for task in group.task_list])
    await session.commit()
