"""Workflows; their tasks are in `workflow_tasks.py`."""

from fastapi import APIRouter, Response, status
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import (
    ReadableProject,
    ReadableWorkflow,
    SessionDep,
    VerifiedUser,
    WritableProject,
    WritableWorkflow,
)
from api.errors import unprocessable
from api.queries.jobs import require_no_submitted_job
from api.queries.task_groups import reasons_not_to_run
from fractal_models.database import saved_id
from fractal_models.schemas.workflow import (
    WorkflowCreate,
    WorkflowRead,
    WorkflowReadWithWarnings,
    WorkflowUpdate,
)
from fractal_models.tables import UserOAuth, WorkflowV2

router = APIRouter(prefix="/api/v2/project/{project_id}/workflow", tags=["Workflow"])


@router.get("/")
async def list_workflows(project: ReadableProject, session: SessionDep) -> list[WorkflowRead]:
    found = await session.exec(
        select(WorkflowV2)
        .where(WorkflowV2.project_id == project.id)
        .order_by(col(WorkflowV2.is_starred).desc(), WorkflowV2.name, col(WorkflowV2.id))
    )
    return [WorkflowRead.model_validate(workflow) for workflow in found]


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_workflow(
    request: WorkflowCreate, project: WritableProject, session: SessionDep
) -> WorkflowRead:
    await _require_new_name(session, project.id, request.name)
    workflow = WorkflowV2(
        **request.model_dump(), project_id=saved_id(project), project=project, task_list=[]
    )
    session.add(workflow)
    await session.commit()
    return WorkflowRead.model_validate(workflow)


@router.get("/{workflow_id}/")
async def read_workflow(
    workflow: ReadableWorkflow, user: VerifiedUser, session: SessionDep
) -> WorkflowReadWithWarnings:
    return await _with_warnings(session, user, workflow)


@router.patch("/{workflow_id}/")
async def update_workflow(
    workflow: WritableWorkflow, changes: WorkflowUpdate, user: VerifiedUser, session: SessionDep
) -> WorkflowReadWithWarnings:
    given = changes.given()
    order = given.pop("reordered_workflowtask_ids", None)
    if given.get("name", workflow.name) != workflow.name:
        await _require_new_name(session, workflow.project_id, changes.name)
    workflow.sqlmodel_update(given)
    if order is not None:
        _reorder(workflow, order)
    await session.commit()
    return await _with_warnings(session, user, workflow)


@router.delete("/{workflow_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_workflow(workflow: WritableWorkflow, session: SessionDep) -> None:
    """Delete a workflow; its jobs and what they made stay."""
    await require_no_submitted_job(session, workflow, "workflow")
    await session.delete(workflow)
    await session.commit()


@router.post("/{workflow_id}/star/")
async def star_workflow(workflow: WritableWorkflow, session: SessionDep) -> Response:
    workflow.is_starred = True
    await session.commit()
    return Response()


@router.post("/{workflow_id}/unstar/")
async def unstar_workflow(workflow: WritableWorkflow, session: SessionDep) -> Response:
    workflow.is_starred = False
    await session.commit()
    return Response()


async def _require_new_name(session: AsyncSession, project_id: int | None, name: str) -> None:
    found = await session.exec(
        select(WorkflowV2.id).where(WorkflowV2.project_id == project_id, WorkflowV2.name == name)
    )
    if (workflow_id := found.first()) is not None:
        raise unprocessable(f"The project has a workflow {name!r} already: {workflow_id}.")


def _reorder(workflow: WorkflowV2, ids: list[int]) -> None:
    by_id = {task.id: task for task in workflow.task_list}
    if len(ids) != len(by_id) or set(ids) != set(by_id):
        raise unprocessable(
            f"reordered_workflowtask_ids must name each task of workflow {workflow.id} once: "
            f"{', '.join(map(str, by_id)) or 'it has none'}."
        )
    for order, task_id in enumerate(ids):
        by_id[task_id].order = order
    workflow.task_list.sort(key=lambda task: task.order or 0)


async def _with_warnings(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> WorkflowReadWithWarnings:
    answer = WorkflowReadWithWarnings.model_validate(workflow)
    reasons = await reasons_not_to_run(session, user, workflow)
    for task in answer.task_list:
        task.warning = reasons.get(task.id)
    return answer
