"""Workflows that leave, or come from elsewhere or from a template."""

from fastapi import APIRouter, status
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries.named_tasks import export_of, tasks_named
from api.queries.workflows import require_new_name, with_warnings
from api.rights import ReadableTemplate, ReadableWorkflow, WritableProject
from api.services import Contributor, SessionDep
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.workflow import WorkflowReadWithWarnings
from fractal_models.schemas.workflow_import import (
    WorkflowExport,
    WorkflowImport,
    WorkflowImportFromTemplate,
)
from fractal_models.tables import ProjectV2, UserOAuth, WorkflowV2
from fractal_models.tables.columns import now
from fractal_models.workflow_tasks import input_types_of, new_workflow_task

router = APIRouter(prefix="/api/v2/project/{project_id}/workflow", tags=["Workflow"])


@router.get("/{workflow_id}/export/")
async def export_workflow(workflow: ReadableWorkflow, session: SessionDep) -> WorkflowExport:
    """The workflow as `import/` takes it, here or elsewhere."""
    return await export_of(session, workflow)


@router.post("/import/", status_code=status.HTTP_201_CREATED)
async def import_workflow(
    request: WorkflowImport, project: WritableProject, user: Contributor, session: SessionDep
) -> WorkflowReadWithWarnings:
    """Make a workflow of tasks that are given by package, version and name.

    Where some are not there, the answer 422 has `data`: for each task, whether it was found, and
    if not, which other versions there are.
    """
    workflow = await _import(session, user, project, request)
    await session.commit()
    return await with_warnings(session, user, workflow)


@router.post("/import-from-template/", status_code=status.HTTP_201_CREATED)
async def import_workflow_from_template(
    template: ReadableTemplate,
    changes: WorkflowImportFromTemplate,
    project: WritableProject,
    user: Contributor,
    session: SessionDep,
) -> WorkflowReadWithWarnings:
    """Make a workflow of a template, with other versions of its tasks where wanted."""
    request = WorkflowImport.model_validate(template.data)
    request.name = changes.name or request.name
    for position, version in changes.override_versions.items():
        if position >= len(request.task_list):
            raise RefusedError(
                f"override_versions: there is no task {position}, the template has tasks 0 to "
                f"{len(request.task_list) - 1}."
            )
        request.task_list[position].task.version = version
    workflow = await _import(session, user, project, request)
    workflow.template_id, template.timestamp_last_used = template.id, now()
    await session.commit()
    return await with_warnings(session, user, workflow)


async def _import(
    session: AsyncSession, user: UserOAuth, project: ProjectV2, request: WorkflowImport
) -> WorkflowV2:
    """A new workflow (not committed)."""
    await require_new_name(session, project.id, request.name)
    wanted = [entry.task for entry in request.task_list]
    tasks = await tasks_named(session, user, project, wanted)
    workflow = WorkflowV2(
        name=request.name,
        description=request.description,
        project_id=saved_id(project),
        project=project,
        task_list=[],
    )
    for order, (entry, task) in enumerate(zip(request.task_list, tasks, strict=True)):
        input_types_of(task, entry.type_filters)
        fields = entry.model_dump(exclude={"task", "input_filters"})
        workflow.task_list.append(new_workflow_task(task, order=order, **fields))
    session.add(workflow)
    return workflow
