"""Workflows that leave, or come from elsewhere or from a template."""

from fastapi import APIRouter, status

from api.queries.workflows import require_new_name, with_warnings
from api.rights import ReadableTemplate, ReadableWorkflow, WritableProject
from api.services import Contributor, SessionDep
from fractal_models import workflow_exchange
from fractal_models.errors import RefusedError
from fractal_models.schemas.workflow import WorkflowReadWithWarnings
from fractal_models.schemas.workflow_import import (
    WorkflowExport,
    WorkflowImport,
    WorkflowImportFromTemplate,
)
from fractal_models.tables.columns import now

router = APIRouter(prefix="/api/v2/project/{project_id}/workflow", tags=["Workflow"])


@router.get("/{workflow_id}/export/")
async def export_workflow(workflow: ReadableWorkflow, session: SessionDep) -> WorkflowExport:
    """The workflow as `import/` takes it, here or elsewhere."""
    return await workflow_exchange.export_workflow(session, workflow)


@router.post("/import/", status_code=status.HTTP_201_CREATED)
async def import_workflow(
    request: WorkflowImport, project: WritableProject, user: Contributor, session: SessionDep
) -> WorkflowReadWithWarnings:
    """Make a workflow of tasks that are given by package, version and name.

    Where some are not there, the answer 422 has `data`: for each task, whether it was found, and
    if not, which other versions there are.
    """
    await require_new_name(session, project.id, request.name)
    workflow = await workflow_exchange.import_workflow(session, user, project, request)
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
    await require_new_name(session, project.id, request.name)
    workflow = await workflow_exchange.import_workflow(session, user, project, request)
    workflow.template_id, template.timestamp_last_used = template.id, now()
    await session.commit()
    return await with_warnings(session, user, workflow)
