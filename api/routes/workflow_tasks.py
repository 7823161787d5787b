"""The tasks in a workflow. A job keeps a copy of its own, so edits never reach it."""

from typing import Annotated

from fastapi import APIRouter, Query, status
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import (
    Contributor,
    ReadableWorkflowTask,
    SessionDep,
    WritableProject,
    WritableWorkflow,
    WritableWorkflowTask,
)
from api.queries.jobs import require_no_submitted_job
from api.queries.task_groups import usable_tasks
from fractal_models.database import saved_id
from fractal_models.schemas.workflow import (
    WorkflowTaskCreate,
    WorkflowTaskRead,
    WorkflowTaskReplace,
    WorkflowTaskUpdate,
)
from fractal_models.tables import TaskV2, WorkflowTaskV2, WorkflowV2
from fractal_models.workflow_tasks import (
    check_components,
    input_types_of,
    new_workflow_task,
    replace_task,
)

router = APIRouter(
    prefix="/api/v2/project/{project_id}/workflow/{workflow_id}/wftask", tags=["WorkflowTask"]
)


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_workflow_tasks(
    requests: list[WorkflowTaskCreate],
    workflow: WritableWorkflow,
    project: WritableProject,
    user: Contributor,
    session: SessionDep,
    order: Annotated[int | None, Query(ge=0)] = None,
) -> list[WorkflowTaskRead]:
    """Put tasks into the workflow, at position `order` (from 0) or at its end."""
    tasks = await usable_tasks(
        session, user, project.resource_id, {request.task_id for request in requests}
    )
    new = [_workflow_task(workflow, tasks[each.task_id], each) for each in requests]
    await _lock(session, workflow)
    position = len(workflow.task_list) if order is None else order
    workflow.task_list[position:position] = new
    _number(workflow)
    await session.commit()
    return [WorkflowTaskRead.model_validate(workflow_task) for workflow_task in new]


@router.post("/replace-task/", status_code=status.HTTP_201_CREATED)
async def replace_workflow_task(
    workflow_task: WritableWorkflowTask,
    task_id: int,
    arguments: WorkflowTaskReplace,
    project: WritableProject,
    user: Contributor,
    session: SessionDep,
) -> WorkflowTaskRead:
    """Put another task in the place of one, mostly a newer version of it.

    Arguments that are not given stay, as do alias, description and filters.
    """
    task = (await usable_tasks(session, user, project.resource_id, {task_id}))[task_id]
    given = arguments.model_dump(exclude_none=True)
    check_components(task, given)
    replace_task(workflow_task, task)
    workflow_task.sqlmodel_update(given)
    await session.commit()
    return WorkflowTaskRead.model_validate(workflow_task)


@router.get("/{workflow_task_id}/")
async def read_workflow_task(workflow_task: ReadableWorkflowTask) -> WorkflowTaskRead:
    return WorkflowTaskRead.model_validate(workflow_task)


@router.patch("/{workflow_task_id}/")
async def update_workflow_task(
    workflow_task: WritableWorkflowTask, changes: WorkflowTaskUpdate, session: SessionDep
) -> WorkflowTaskRead:
    given = changes.given()
    _check(workflow_task.task, changes)
    for name in given.keys() & {"args_non_parallel", "args_parallel"}:
        given[name] = given[name] or None
    workflow_task.sqlmodel_update(given)
    await session.commit()
    return WorkflowTaskRead.model_validate(workflow_task)


@router.delete("/{workflow_task_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_workflow_task(
    workflow_task: WritableWorkflowTask, workflow: WritableWorkflow, session: SessionDep
) -> None:
    """Take a task out of the workflow, and with it which images it was run on."""
    await require_no_submitted_job(session, workflow, "workflow")
    await session.refresh(workflow, ["task_list"])
    workflow.task_list.remove(workflow_task)
    _number(workflow)
    await session.commit()


def _workflow_task(
    workflow: WorkflowV2, task: TaskV2, request: WorkflowTaskCreate
) -> WorkflowTaskV2:
    _check(task, request)
    fields = request.model_dump(exclude={"task_id"})
    return new_workflow_task(task, workflow_id=saved_id(workflow), **fields)


def _check(task: TaskV2, changes: WorkflowTaskUpdate) -> None:
    check_components(task, changes.model_dump())
    input_types_of(task, changes.type_filters)


def _number(workflow: WorkflowV2) -> None:
    for order, workflow_task in enumerate(workflow.task_list):
        workflow_task.order = order


async def _lock(session: AsyncSession, workflow: WorkflowV2) -> None:
    """One change of the order at a time."""
    await session.exec(select(WorkflowV2.id).where(WorkflowV2.id == workflow.id).with_for_update())
    await session.refresh(workflow, ["task_list"])
