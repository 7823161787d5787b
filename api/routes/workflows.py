"""Workflows; their tasks are in `workflow_tasks.py`."""

from fastapi import APIRouter, Response, status
from sqlmodel import col

from api import lists
from api.queries.workflows import WORKFLOWS, require_new_name, with_warnings
from api.readers import ProjectReader
from api.rights import ReadableWorkflow, WritableProject, WritableWorkflow
from api.services import SessionDep, VerifiedUser
from flows.records.jobs import require_no_submitted_job
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.workflow import (
    TaskVersionRead,
    TypeFiltersRead,
    WorkflowCreate,
    WorkflowRead,
    WorkflowReadWithWarnings,
    WorkflowUpdate,
)
from fractal_models.tables import WorkflowV2
from fractal_models.task_versions import newer_versions
from fractal_models.workflow_tasks import input_types_of

router = APIRouter(prefix="/api/v2/project/{project_id}/workflow", tags=["Workflow"])


_OF_PROJECT = lists.list_document(
    WorkflowRead, WORKFLOWS.where(col(WorkflowV2.project_id) == lists.PROJECT_ID)
)


@router.get("/", response_model=list[WorkflowRead])
async def list_workflows(reader: ProjectReader) -> Response:
    return await reader.answer(_OF_PROJECT)


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_workflow(
    request: WorkflowCreate, project: WritableProject, session: SessionDep
) -> WorkflowRead:
    await require_new_name(session, project.id, request.name)
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
    return await with_warnings(session, user, workflow)


@router.patch("/{workflow_id}/")
async def update_workflow(
    workflow: WritableWorkflow, changes: WorkflowUpdate, user: VerifiedUser, session: SessionDep
) -> WorkflowReadWithWarnings:
    given = changes.given()
    order = given.pop("reordered_workflowtask_ids", None)
    if given.get("name", workflow.name) != workflow.name:
        await require_new_name(session, workflow.project_id, changes.name)
    workflow.sqlmodel_update(given)
    if order is not None:
        _reorder(workflow, order)
    await session.commit()
    return await with_warnings(session, user, workflow)


@router.delete("/{workflow_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_workflow(workflow: WritableWorkflow, session: SessionDep) -> None:
    """Delete a workflow; its jobs and what they made stay."""
    await require_no_submitted_job(session, workflow)
    await session.delete(workflow)
    await session.commit()


@router.get("/{workflow_id}/type-filters-flow/")
async def read_type_filters(workflow: ReadableWorkflow) -> list[TypeFiltersRead]:
    """Per task: the types that tasks before it set, those that it asks for, and those it sets."""
    if not workflow.task_list:
        raise RefusedError(f"Workflow {workflow.id} has no tasks: add some first.")
    current: dict[str, bool] = {}
    answer = []
    for workflow_task in workflow.task_list:
        task = workflow_task.task
        answer.append(
            TypeFiltersRead(
                workflowtask_id=saved_id(workflow_task),
                current_type_filters=current,
                input_type_filters=input_types_of(task, workflow_task.type_filters),
                output_type_filters=task.output_types,
            )
        )
        current = {**current, **task.output_types}
    return answer


@router.get("/{workflow_id}/version-update-candidates/")
async def list_version_update_candidates(
    workflow: ReadableWorkflow, user: VerifiedUser, session: SessionDep
) -> list[list[TaskVersionRead]]:
    """Per task: its newer versions that can take its place, the oldest first."""
    return await newer_versions(session, user, workflow)


@router.post("/{workflow_id}/star/")
async def star_workflow(workflow: WritableWorkflow, session: SessionDep) -> None:
    workflow.is_starred = True
    await session.commit()


@router.post("/{workflow_id}/unstar/")
async def unstar_workflow(workflow: WritableWorkflow, session: SessionDep) -> None:
    workflow.is_starred = False
    await session.commit()


def _reorder(workflow: WorkflowV2, ids: list[int]) -> None:
    by_id = {task.id: task for task in workflow.task_list}
    if len(ids) != len(by_id) or set(ids) != set(by_id):
        raise RefusedError(
            f"reordered_workflowtask_ids must name each task of workflow {workflow.id} once: "
            f"{', '.join(map(str, by_id)) or 'it has none'}."
        )
    for order, task_id in enumerate(ids):
        by_id[task_id].order = order
    workflow.task_list.sort(key=lambda task: task.order or 0)
