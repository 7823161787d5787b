"""Workflow templates: versions of workflows, offered for reuse."""

from operator import eq

from fastapi import APIRouter, status
from sqlmodel.ext.asyncio.session import AsyncSession

from api.dependencies import (
    Contributor,
    OwnTemplate,
    ReadableTemplate,
    SessionDep,
    TemplateGroup,
    VerifiedUser,
    require_membership,
)
from api.errors import conflicts_as
from api.paging import PagingDep, page_of
from api.queries.conditions import asked_for, contains
from api.queries.named_tasks import export_of
from api.queries.templates import authors_seen_by, grouped_templates
from api.queries.workflows import workflow_seen_by
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.base import CONTRACT_VERSION
from fractal_models.schemas.workflow_import import WorkflowExport
from fractal_models.schemas.workflow_template import (
    TemplatePage,
    WorkflowTemplateCreate,
    WorkflowTemplateExport,
    WorkflowTemplateGroup,
    WorkflowTemplateImport,
    WorkflowTemplateRead,
    WorkflowTemplateUpdate,
)
from fractal_models.tables import UserOAuth, WorkflowTemplate

router = APIRouter(prefix="/api/v2/workflow-template", tags=["Workflow Template"])


@router.get("/")
async def list_workflow_templates(
    user: VerifiedUser,
    session: SessionDep,
    paging: PagingDep,
    template_id: int | None = None,
    is_owner: bool = False,
    user_email: str | None = None,
    name: str | None = None,
    version: int | None = None,
) -> TemplatePage:
    """The user's own templates, then those shared with them; each with its versions."""
    where = asked_for(
        (eq, WorkflowTemplate.id, template_id),
        (eq, WorkflowTemplate.user_id, user.id if is_owner else None),
        (eq, UserOAuth.email, user_email),
        (contains, WorkflowTemplate.name, name),
        (eq, WorkflowTemplate.version, version),
    )
    query = grouped_templates(user, *where)
    page = await page_of(session, query, paging, WorkflowTemplateGroup.model_validate)
    return TemplatePage(**dict(page), email_list=await authors_seen_by(session, user))


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_workflow_template(
    workflow_id: int,
    request: WorkflowTemplateCreate,
    user_group_id: TemplateGroup,
    user: Contributor,
    session: SessionDep,
) -> WorkflowTemplateRead:
    """Make a version of a template, of a workflow as it is now."""
    workflow = await workflow_seen_by(session, user, workflow_id)
    if not workflow.task_list:
        raise RefusedError(f"Workflow {workflow_id} has no tasks: add some first.")
    data = await export_of(session, workflow)
    return await _create(session, user, user_group_id, request, data)


@router.post("/import/", status_code=status.HTTP_201_CREATED)
async def import_workflow_template(
    request: WorkflowTemplateImport,
    user_group_id: TemplateGroup,
    user: Contributor,
    session: SessionDep,
) -> WorkflowTemplateRead:
    data = WorkflowExport.model_validate(request.data, from_attributes=True)
    return await _create(session, user, user_group_id, request, data)


@router.get("/{template_id}/")
async def read_workflow_template(
    template: ReadableTemplate, session: SessionDep
) -> WorkflowTemplateRead:
    author = await session.get_one(UserOAuth, template.user_id)
    return _read(template, author)


@router.patch("/{template_id}/")
async def update_workflow_template(
    template: OwnTemplate, changes: WorkflowTemplateUpdate, user: Contributor, session: SessionDep
) -> WorkflowTemplateRead:
    """Describe a template, or share it with a group, or with nobody."""
    if changes.user_group_id is not None:
        await require_membership(session, user, changes.user_group_id)
    template.sqlmodel_update(changes.given())
    await session.commit()
    return _read(template, user)


@router.delete("/{template_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_workflow_template(template: OwnTemplate, session: SessionDep) -> None:
    """Delete a version of a template; workflows that were made of it stay."""
    await session.delete(template)
    await session.commit()


@router.get("/{template_id}/export/")
async def export_workflow_template(template: ReadableTemplate) -> WorkflowTemplateExport:
    """The template as `import/` takes it, here or elsewhere."""
    return WorkflowTemplateExport.model_validate(template)


async def _create(
    session: AsyncSession,
    user: UserOAuth,
    user_group_id: int | None,
    request: WorkflowTemplateCreate,
    data: WorkflowExport,
) -> WorkflowTemplateRead:
    template = WorkflowTemplate(
        **request.model_dump(exclude={"data"}),
        user_id=saved_id(user),
        user_group_id=user_group_id,
        fractal_server_version=CONTRACT_VERSION,
        data=data.model_dump(),
    )
    session.add(template)
    same = f"You have a template {request.name!r} of version {request.version} already."
    async with conflicts_as(same):
        await session.commit()
    return _read(template, user)


def _read(template: WorkflowTemplate, author: UserOAuth) -> WorkflowTemplateRead:
    return WorkflowTemplateRead.model_validate(
        {**template.model_dump(), "user_email": author.email}
    )
