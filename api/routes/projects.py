"""Projects."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Response, status
from sqlalchemy import Select, bindparam
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from api import lists
from api.lists import READER
from api.readers import VerifiedReader
from api.rights import AnyProject, OwnProject, ReadableProject, UserResource, WritableProject
from api.services import Contributor, SessionDep, Superuser, VerifiedUser
from flows.records.jobs import require_no_submitted_job
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.rights import find
from fractal_models.schemas.base import Page
from fractal_models.schemas.project import (
    ProjectCreate,
    ProjectRead,
    ProjectReadSuperuser,
    ProjectUpdate,
)
from fractal_models.tables import DatasetV2, LinkUserProjectV2, Profile, ProjectV2, UserOAuth
from fractal_models.urls import lies_in

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
    if await _owns_project_named(session, user.id, request.name):
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
    if renamed and await _owns_project_named(session, user.id, changes.name):
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
    await session.refresh(project, with_for_update=True)  # nobody is invited meanwhile
    if user.is_guest:
        raise RefusedError(f"User {user.email} is a guest, who owns nothing.")
    profile = await session.get(Profile, user.profile_id) if user.profile_id else None
    if profile is None or profile.resource_id != project.resource_id:
        raise RefusedError(f"User {user.email} has no profile on the resource of this project.")
    link = await session.get(LinkUserProjectV2, (project.id, user_id))
    if link is not None and link.is_owner:
        raise RefusedError(f"User {user.email} owns this project already.")
    if await _owns_project_named(session, user_id, project.name):
        raise RefusedError(f"User {user.email} has a project {project.name!r} already.")
    folders = await session.exec(
        select(DatasetV2.zarr_dir).where(DatasetV2.project_id == project.id)
    )
    if foreign := [folder for folder in folders if not lies_in(folder, user.project_dirs)]:
        raise RefusedError(
            f"Datasets of this project are in {', '.join(foreign)}: first add that to the "
            f"project_dirs of user {user.email}."
        )
    await _give(session, project, user)
    await session.commit()


async def _give(session: AsyncSession, project: ProjectV2, user: UserOAuth) -> None:
    """Make the owner's part in a project, whose row is locked, that of another user."""
    of_project = col(LinkUserProjectV2.project_id) == project.id
    await session.exec(
        delete(LinkUserProjectV2).where(of_project, col(LinkUserProjectV2.user_id) == user.id)
    )
    await session.exec(
        update(LinkUserProjectV2)
        .where(of_project, col(LinkUserProjectV2.is_owner))
        .values(user_id=user.id)
    )


async def _owns_project_named(session: AsyncSession, user_id: int | None, name: str) -> bool:
    """Whether a user owns a project of this name."""
    found = await session.exec(
        select(ProjectV2.id)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .where(
            LinkUserProjectV2.user_id == user_id,
            col(LinkUserProjectV2.is_owner),
            ProjectV2.name == name,
        )
    )
    return found.first() is not None


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
