"""The tasks in a workflow. A job keeps a copy of its own, so edits never reach it."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query, status
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.rights import ReadableWorkflowTask, WritableProject, WritableWorkflow, WritableWorkflowTask
from api.services import Contributor, SessionDep
from flows.records.jobs import require_no_submitted_job
from fractal_models import workflow_tasks
from fractal_models.database import saved_id
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.rights import visible_to
from fractal_models.schemas import workflow as schemas
from fractal_models.tables import TaskGroupV2, TaskV2, UserOAuth, WorkflowTaskV2, WorkflowV2

router = APIRouter(
    prefix="/api/v2/project/{project_id}/workflow/{workflow_id}/wftask", tags=["WorkflowTask"]
)


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_workflow_tasks(
    requests: list[schemas.WorkflowTaskCreate],
    workflow: WritableWorkflow,
    project: WritableProject,
    user: Contributor,
    session: SessionDep,
    order: Annotated[int | None, Query(ge=0)] = None,
) -> list[schemas.WorkflowTaskRead]:
    """Put tasks into the workflow, at position `order` (from 0) or at its end."""
    tasks = await _usable_tasks(
        session, user, project.resource_id, {request.task_id for request in requests}
    )
    new = [_workflow_task(workflow, tasks[each.task_id], each) for each in requests]
    await _lock(session, workflow)
    position = len(workflow.task_list) if order is None else order
    workflow.task_list[position:position] = new
    _number(workflow)
    await session.commit()
    return [schemas.WorkflowTaskRead.model_validate(workflow_task) for workflow_task in new]


@router.post("/replace-task/", status_code=status.HTTP_201_CREATED)
async def replace_workflow_task(
    workflow_task: WritableWorkflowTask,
    task_id: int,
    arguments: schemas.WorkflowTaskReplace,
    project: WritableProject,
    user: Contributor,
    session: SessionDep,
) -> schemas.WorkflowTaskRead:
    """Put another task in the place of one, mostly a newer version of it.

    Arguments that are not given stay, as do alias, description and filters.
    """
    task = (await _usable_tasks(session, user, project.resource_id, {task_id}))[task_id]
    given = arguments.model_dump(exclude_none=True)
    workflow_tasks.check_components(task, given)
    workflow_tasks.replace_task(workflow_task, task)
    workflow_task.sqlmodel_update(given)
    await session.commit()
    return schemas.WorkflowTaskRead.model_validate(workflow_task)


@router.get("/{workflow_task_id}/")
async def read_workflow_task(workflow_task: ReadableWorkflowTask) -> schemas.WorkflowTaskRead:
    return schemas.WorkflowTaskRead.model_validate(workflow_task)


@router.patch("/{workflow_task_id}/")
async def update_workflow_task(
    workflow_task: WritableWorkflowTask, changes: schemas.WorkflowTaskUpdate, session: SessionDep
) -> schemas.WorkflowTaskRead:
    given = changes.given()
    _check(workflow_task.task, changes)
    for name in given.keys() & {"args_non_parallel", "args_parallel"}:
        given[name] = given[name] or None
    workflow_task.sqlmodel_update(given)
    await session.commit()
    return schemas.WorkflowTaskRead.model_validate(workflow_task)


@router.delete("/{workflow_task_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_workflow_task(
    workflow_task: WritableWorkflowTask, workflow: WritableWorkflow, session: SessionDep
) -> None:
    """Take a task out of the workflow, and with it which images it was run on."""
    await require_no_submitted_job(session, workflow)
    await session.refresh(workflow, ["task_list"])
    workflow.task_list.remove(workflow_task)
    _number(workflow)
    await session.commit()


async def _usable_tasks(
    session: AsyncSession, user: UserOAuth, resource_id: int, task_ids: Iterable[int]
) -> dict[int, TaskV2]:
    """Tasks by id, to be put into workflows of projects on a resource.

    Raises:
        NotFoundError: the user sees no such task.
        RefusedError: its group is inactive or elsewhere.
    """
    found = await session.exec(
        select(TaskV2, TaskGroupV2)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(col(TaskV2.id).in_(task_ids), visible_to(user))
        # None is deleted until it is in its workflow, which keeps it.
        .with_for_update(read=True, key_share=True, of=TaskGroupV2)
    )
    tasks: dict[int, TaskV2] = {}
    for task, group in found:
        name = f"Task {task.id} ({task.name}, of {group.pkg_name} {group.version})"
        if not group.active:
            raise RefusedError(f"{name} is not active.")
        if group.resource_id != resource_id:
            raise RefusedError(f"{name} is not on the resource of the project.")
        tasks[saved_id(task)] = task
    for task_id in task_ids:
        if task_id not in tasks:
            raise NotFoundError("Task", task_id)
    return tasks


def _workflow_task(
    workflow: WorkflowV2, task: TaskV2, request: schemas.WorkflowTaskCreate
) -> WorkflowTaskV2:
    _check(task, request)
    fields = request.model_dump(exclude={"task_id"})
    return workflow_tasks.new_workflow_task(task, workflow_id=saved_id(workflow), **fields)


def _check(task: TaskV2, changes: schemas.WorkflowTaskUpdate) -> None:
    workflow_tasks.check_components(task, changes.model_dump())
    workflow_tasks.input_types_of(task, changes.type_filters)


def _number(workflow: WorkflowV2) -> None:
    for order, workflow_task in enumerate(workflow.task_list):
        workflow_task.order = order


async def _lock(session: AsyncSession, workflow: WorkflowV2) -> None:
    """One change of the order at a time."""
    await session.exec(select(WorkflowV2.id).where(WorkflowV2.id == workflow.id).with_for_update())
    await session.refresh(workflow, ["task_list"])
