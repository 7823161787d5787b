"""Projects."""

from fastapi import APIRouter, status

from api.dependencies import (
    Contributor,
    OwnProject,
    ReadableProject,
    SessionDep,
    UserResource,
    VerifiedUser,
    WritableProject,
)
from api.queries.jobs import require_no_submitted_job
from api.queries.projects import owns_project_named, projects_of
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.project import ProjectCreate, ProjectRead, ProjectUpdate
from fractal_models.tables import LinkUserProjectV2, ProjectV2

router = APIRouter(prefix="/api/v2/project", tags=["Project"])


@router.get("/")
async def list_projects(
    user: VerifiedUser, session: SessionDep, is_owner: bool = True
) -> list[ProjectRead]:
    """The user's own projects, or with `is_owner=false` those of others that they joined."""
    projects = await projects_of(session, user.id, is_owner=is_owner)
    return [ProjectRead.model_validate(project) for project in projects]


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
    await require_no_submitted_job(session, project, "project")
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
