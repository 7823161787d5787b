"""Projects."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Response, status
from sqlalchemy import Select, bindparam
from sqlmodel import col, select

from api import lists
from api.lists import READER
from api.readers import VerifiedReader
from api.rights import AnyProject, OwnProject, ReadableProject, UserResource, WritableProject
from api.services import Contributor, SessionDep, Superuser, VerifiedUser
from flows.records.jobs import require_no_submitted_job
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.project_owners import give_project, owns_project_named
from fractal_models.rights import find
from fractal_models.schemas.base import Page
from fractal_models.schemas.project import (
    ProjectCreate,
    ProjectRead,
    ProjectReadSuperuser,
    ProjectUpdate,
)
from fractal_models.tables import LinkUserProjectV2, ProjectV2, UserOAuth

router = APIRouter(prefix="/api/v2/project", tags=["Project"])
router_of_all = APIRouter(prefix="/admin/v2/project", tags=["Administration"])


_MY_PROJECTS = lists.list_document(
    ProjectRead,
    select(ProjectV2)
    .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
    .where(
        LinkUserProjectV2.user_id == READER.id,
        LinkUserProjectV2.is_owner == bindparam("is_owner"),
        col(LinkUserProjectV2.is_verified),
    )
    .order_by(col(ProjectV2.is_starred).desc(), col(ProjectV2.id).desc()),
)


@router.get("/", response_model=list[ProjectRead])
async def list_projects(reader: VerifiedReader, is_owner: bool = True) -> Response:
    """The user's own projects, or with `is_owner=false` those of others that they joined.

    Those with a star come first, and then the newest.
    """
    return await reader.answer(_MY_PROJECTS, is_owner=is_owner)


@router.post("/", status_code=status.HTTP_201_CREATED)
async def create_project(
    request: ProjectCreate, user: Contributor, resource: UserResource, session: SessionDep
) -> ProjectRead:
    """Make a project on the user's resource, owned by them."""
    if await owns_project_named(session, user.id, request.name):
        raise RefusedError(f"You have a project {request.name!r} already.")
    project = ProjectV2(**request.model_dump(), resource_id=saved_id(resource))
    session.add(project)
    await session.flush()
    session.add(
        LinkUserProjectV2(
            project_id=saved_id(project),
            user_id=saved_id(user),
            is_owner=True,
            is_verified=True,
            permissions="rwx",
        )
    )
    await session.commit()
    return ProjectRead.model_validate(project)


@router.get("/{project_id}/")
async def read_project(project: ReadableProject) -> ProjectRead:
    return ProjectRead.model_validate(project)


@router.patch("/{project_id}/")
async def update_project(
    project: WritableProject, changes: ProjectUpdate, user: VerifiedUser, session: SessionDep
) -> ProjectRead:
    given = changes.given()
    renamed = given.get("name", project.name) != project.name
    if renamed and await owns_project_named(session, user.id, changes.name):
        raise RefusedError(f"You have a project {changes.name!r} already.")
    project.sqlmodel_update(given)
    await session.commit()
    return ProjectRead.model_validate(project)


@router.delete("/{project_id}/", status_code=status.HTTP_204_NO_CONTENT)
async def delete_project(project: OwnProject, session: SessionDep) -> None:
    """Delete a project with its datasets and workflows; images on disk and jobs stay."""
    await require_no_submitted_job(session, project)
    await session.delete(project)
    await session.commit()


@router.post("/{project_id}/star/")
async def star_project(project: WritableProject, session: SessionDep) -> None:
    project.is_starred = True
    await session.commit()


@router.post("/{project_id}/unstar/")
async def unstar_project(project: WritableProject, session: SessionDep) -> None:
    project.is_starred = False
    await session.commit()


# --- for administrators ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProjectFilters:
    """Which projects are asked for, of all that there are."""

    project_id: Annotated[int | None, lists.equals(ProjectV2.id)] = None
    name: Annotated[str | None, lists.contains(ProjectV2.name)] = None
    user_email: Annotated[str | None, lists.equals(UserOAuth.email)] = None


@router_of_all.get("/", response_model=Page[ProjectReadSuperuser])
async def list_all_projects(
    filters: Annotated[ProjectFilters, lists.filters(ProjectFilters)],
    _: Superuser,
    session: SessionDep,
    paging: lists.PagingDep,
) -> Response:
    """Projects with their owners, by email of the owner and name."""
    query = _owned().where(*lists.asked_for(filters))
    return await lists.page_of(session, ProjectReadSuperuser, query, paging)


@router_of_all.patch("/{project_id}/")
async def give_project_to_user(project: AnyProject, user_id: int, session: SessionDep) -> None:
    """Give a project to a new owner; the old one has no part in it any more."""
    user = await find(session, UserOAuth, user_id)
    await give_project(session, project, user)
    await session.commit()


def _owned() -> Select[Any]:
    """Every project with the email of its owner, by these."""
    columns: list[Any] = list(ProjectV2.metadata.tables["projectv2"].c)
    columns.append(col(UserOAuth.email).label("user_email"))
    query: Select[Any] = (
        select(*columns)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .join(UserOAuth, col(UserOAuth.id) == col(LinkUserProjectV2.user_id))
        .where(col(LinkUserProjectV2.is_owner))
        .order_by(UserOAuth.email, ProjectV2.name, col(ProjectV2.id))
    )
    return query
