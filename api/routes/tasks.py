"""Single tasks."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, status

from api.dependencies import (
    Contributor,
    OwnTask,
    ReadableTask,
    SessionDep,
    SharingGroup,
    Superuser,
    UserResource,
    VerifiedUser,
)
from api.errors import Refusal
from api.paging import PagingDep, page_of
from api.queries.task_groups import require_new, tasks_visible_to
from api.queries.task_uses import TaskFilters, add_uses, unused
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.base import Page
from fractal_models.schemas.task import TaskCreate, TaskInfo, TaskRead, TaskReadSlim, TaskUpdate
from fractal_models.tables import TaskGroupV2, TaskV2

router = APIRouter(tags=["Task"])

_OF_PACKAGE = {"command_non_parallel", "command_parallel", "input_types", "output_types"}


@router.get("/api/v2/task/")
async def list_tasks(user: VerifiedUser, session: SessionDep) -> list[TaskReadSlim]:
    """The user's own tasks and those shared with them."""
    tasks = await tasks_visible_to(session, user)
    return [TaskReadSlim.model_validate(task) for task in tasks]


@router.post("/api/v2/task/", status_code=status.HTTP_201_CREATED)
async def create_task(
    request: TaskCreate,
    user: Contributor,
    resource: UserResource,
    user_group_id: SharingGroup,
    session: SessionDep,
) -> TaskRead:
    """Make a task of given commands, in a task group of its own."""
    group = TaskGroupV2(
        user_id=saved_id(user),
        user_group_id=user_group_id,
        resource_id=saved_id(resource),
        origin="other",
        pkg_name=request.name,
        version=request.version,
    )
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


@router.get("/admin/v2/task/")
async def list_all_tasks(
    filters: Annotated[TaskFilters, Depends()], paging: PagingDep, _: Superuser, session: SessionDep
) -> Page[TaskInfo]:
    """The tasks of all users, each with the workflows that use it."""
    page = await page_of(session, filters.query(), paging, unused)
    await add_uses(session, page.items)
    return page
