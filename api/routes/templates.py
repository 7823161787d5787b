"""Workflow templates: versions of workflows, offered for reuse."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Response, status
from sqlalchemy import ScalarSelect, Select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api import lists
from api.errors import conflicts_as
from api.rights import OwnTemplate, ReadableTemplate, TemplateGroup
from api.services import Contributor, SessionDep, VerifiedUser
from fractal_models.database import saved_id
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.json_rows import json_array
from fractal_models.rights import require_membership, shared_with
from fractal_models.schemas import workflow_template as schemas
from fractal_models.schemas.base import CONTRACT_VERSION
from fractal_models.schemas.workflow_import import WorkflowExport
from fractal_models.tables import LinkUserProjectV2, UserOAuth, WorkflowTemplate, WorkflowV2
from fractal_models.workflow_exchange import export_workflow

router = APIRouter(prefix="/api/v2/workflow-template", tags=["Workflow Template"])


@dataclass(frozen=True, slots=True)
class TemplateFilters:
    """Which templates are asked for."""

    template_id: Annotated[int | None, lists.equals(WorkflowTemplate.id)] = None
    user_email: Annotated[str | None, lists.equals(UserOAuth.email)] = None
    name: Annotated[str | None, lists.contains(WorkflowTemplate.name)] = None
    version: Annotated[int | None, lists.equals(WorkflowTemplate.version)] = None


@router.get("/", response_model=schemas.TemplatePage)
async def list_workflow_templates(
    user: VerifiedUser,
    session: SessionDep,
    paging: lists.PagingDep,
    filters: Annotated[TemplateFilters, lists.filters(TemplateFilters)],
    is_owner: bool = False,
) -> Response:
    """The user's own templates, then those shared with them; each with its versions."""
    query = _grouped(user).where(*lists.asked_for(filters))
    if is_owner:
        query = query.where(col(WorkflowTemplate.user_id) == user.id)
    return await lists.page_of(
        session, schemas.WorkflowTemplateGroup, query, paging, email_list=_authors_seen_by(user)
    )


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_workflow_template(
    workflow_id: int,
    request: schemas.WorkflowTemplateCreate,
    user_group_id: TemplateGroup,
    user: Contributor,
    session: SessionDep,
) -> schemas.WorkflowTemplateRead:
    """Make a version of a template, of a workflow as it is now."""
    workflow = await _workflow_seen_by(session, user, workflow_id)
    if not workflow.task_list:
        raise RefusedError(f"Workflow {workflow_id} has no tasks: add some first.")
    data = await export_workflow(session, workflow)
    return await _create(session, user, user_group_id, request, data)


@router.post("/import/", status_code=status.HTTP_201_CREATED)
async def import_workflow_template(
    request: schemas.WorkflowTemplateImport,
    user_group_id: TemplateGroup,
    user: Contributor,
    session: SessionDep,
) -> schemas.WorkflowTemplateRead:
    data = WorkflowExport.model_validate(request.data, from_attributes=True)
    return await _create(session, user, user_group_id, request, data)


@router.get("/{template_id}/")
async def read_workflow_template(
    template: ReadableTemplate, session: SessionDep
) -> schemas.WorkflowTemplateRead:
    author = await session.get_one(UserOAuth, template.user_id)
    return _read(template, author)


@router.patch("/{template_id}/")
async def update_workflow_template(
    template: OwnTemplate,
    changes: schemas.WorkflowTemplateUpdate,
    user: Contributor,
    session: SessionDep,
) -> schemas.WorkflowTemplateRead:
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
async def export_workflow_template(template: ReadableTemplate) -> schemas.WorkflowTemplateExport:
    """The template as `import/` takes it, here or elsewhere."""
    return schemas.WorkflowTemplateExport.model_validate(template)


def _grouped(user: UserOAuth) -> Select[Any]:
    """Author, name and versions (newest first) of templates; the user's own go first."""
    version = func.json_build_object(
        *("template_id", WorkflowTemplate.id, "template_version", WorkflowTemplate.version)
    )
    newest_first = aggregate_order_by(version, col(WorkflowTemplate.version).desc())
    return (
        select(
            col(UserOAuth.email).label("user_email"),
            col(WorkflowTemplate.name).label("template_name"),
            func.json_agg(newest_first).label("templates"),
        )
        .join(UserOAuth, col(UserOAuth.id) == col(WorkflowTemplate.user_id))
        .where(shared_with(user, WorkflowTemplate))
        .group_by(col(WorkflowTemplate.user_id), col(UserOAuth.email), col(WorkflowTemplate.name))
        .order_by(
            col(WorkflowTemplate.user_id) != user.id,
            col(UserOAuth.email),
            col(WorkflowTemplate.name),
        )
    )


def _authors_seen_by(user: UserOAuth) -> ScalarSelect[Any]:
    """The emails of those who made templates that the user sees."""
    authors = select(WorkflowTemplate.user_id).where(shared_with(user, WorkflowTemplate))
    return (
        select(json_array(col(UserOAuth.email), UserOAuth.email))
        .where(col(UserOAuth.id).in_(authors))
        .scalar_subquery()
    )


async def _workflow_seen_by(session: AsyncSession, user: UserOAuth, workflow_id: int) -> WorkflowV2:
    """A workflow of any project that the user takes part in.

    Raises:
        NotFoundError: there is none.
    """
    found = await session.exec(
        select(WorkflowV2)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(WorkflowV2.project_id))
        .where(
            WorkflowV2.id == workflow_id,
            LinkUserProjectV2.user_id == user.id,
            col(LinkUserProjectV2.is_verified),
        )
    )
    if (workflow := found.first()) is None:
        raise NotFoundError("Workflow", workflow_id)
    return workflow


async def _create(
    session: AsyncSession,
    user: UserOAuth,
    user_group_id: int | None,
    request: schemas.WorkflowTemplateCreate,
    data: WorkflowExport,
) -> schemas.WorkflowTemplateRead:
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


def _read(template: WorkflowTemplate, author: UserOAuth) -> schemas.WorkflowTemplateRead:
    return schemas.WorkflowTemplateRead.model_validate(
        {**template.model_dump(), "user_email": author.email}
    )
