"""The tasks in a workflow. A job keeps a copy of its own, so edits never reach it."""

from typing import Annotated

from fastapi import APIRouter, Body, status
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
from api.errors import unprocessable
from api.queries.jobs import require_no_submitted_job
from api.queries.task_groups import usable_tasks
from flows.units import COMPOUND
from fractal_models.database import saved_id
from fractal_models.images import FilterError, merge_type_filters
from fractal_models.schemas.workflow import (
    WorkflowTaskCreate,
    WorkflowTaskRead,
    WorkflowTaskUpdate,
)
from fractal_models.tables import TaskV2, WorkflowTaskV2, WorkflowV2

router = APIRouter(
    prefix="/api/v2/project/{project_id}/workflow/{workflow_id}/wftask", tags=["WorkflowTask"]
)


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_workflow_tasks(
    requests: Annotated[list[WorkflowTaskCreate], Body(min_length=1)],
    workflow: WritableWorkflow,
    project: WritableProject,
    user: Contributor,
    session: SessionDep,
    order: int | None = None,
) -> list[WorkflowTaskRead]:
    """Put tasks into the workflow, at position `order` (from 0) or at its end."""
    tasks = await usable_tasks(
        session, user, project.resource_id, {request.task_id for request in requests}
    )
    new = [_workflow_task(workflow, tasks, request) for request in requests]
    await _lock(session, workflow)
    position = len(workflow.task_list) if order is None else order
    if not 0 <= position <= len(workflow.task_list):
        raise unprocessable(
            f"order must be from 0 to {len(workflow.task_list)}, the end of workflow {workflow.id}."
        )
    workflow.task_list[position:position] = new
    _number(workflow)
    await session.commit()
    return [WorkflowTaskRead.model_validate(workflow_task) for workflow_task in new]


@router.get("/{workflow_task_id}/")
async def read_workflow_task(workflow_task: ReadableWorkflowTask) -> WorkflowTaskRead:
    return WorkflowTaskRead.model_validate(workflow_task)


@router.patch("/{workflow_task_id}/")
async def update_workflow_task(
    workflow_task: WritableWorkflowTask, changes: WorkflowTaskUpdate, session: SessionDep
) -> WorkflowTaskRead:
    _check(workflow_task.task, changes)
    workflow_task.sqlmodel_update(changes.given())
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
    workflow: WorkflowV2, tasks: dict[int, TaskV2], request: WorkflowTaskCreate
) -> WorkflowTaskV2:
    task = tasks[request.task_id]
    _check(task, request)
    return WorkflowTaskV2(
        **request.model_dump(), workflow_id=saved_id(workflow), task_type=task.type, task=task
    )


def _check(task: TaskV2, changes: WorkflowTaskUpdate) -> None:
    """Arguments must be for a phase that the task has, filters must not contradict the task."""
    missing = []
    if task.type == "parallel":
        missing = ["args_non_parallel", "meta_non_parallel"]
    elif task.type not in COMPOUND:
        missing = ["args_parallel", "meta_parallel"]
    for field in missing:
        if getattr(changes, field) is not None:
            raise unprocessable(f"Task {task.name!r} is {task.type}: it takes no {field}.")
    try:
        merge_type_filters(task.input_types, changes.type_filters)
    except FilterError as error:
        raise unprocessable(str(error)) from error


def _number(workflow: WorkflowV2) -> None:
    for order, workflow_task in enumerate(workflow.task_list):
        workflow_task.order = order


async def _lock(session: AsyncSession, workflow: WorkflowV2) -> None:
    """One change of the order at a time."""
    await session.exec(select(WorkflowV2.id).where(WorkflowV2.id == workflow.id).with_for_update())
    await session.refresh(workflow, ["task_list"])
