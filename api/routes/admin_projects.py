"""Administration of projects: whose they are, and who takes part in them."""

from operator import eq

from fastapi import APIRouter
from sqlmodel import col, select

from api.dependencies import SessionDep, Superuser
from api.lookups import find
from api.paging import PagingDep, page_of
from api.queries.conditions import asked_for, contains
from api.queries.projects import owned_projects, owns_project_named
from api.queries.sharing import accept_invitation, give_to, links
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.schemas.base import Page
from fractal_models.schemas.project import ProjectReadSuperuser
from fractal_models.schemas.sharing import LinkUserProjectRead
from fractal_models.tables import DatasetV2, LinkUserProjectV2, Profile, ProjectV2, UserOAuth
from fractal_models.urls import lies_in

router = APIRouter(prefix="/admin/v2", tags=["Administration"])


@router.get("/project/")
async def list_all_projects(
    _: Superuser,
    session: SessionDep,
    paging: PagingDep,
    project_id: int | None = None,
    name: str | None = None,
    user_email: str | None = None,
) -> Page[ProjectReadSuperuser]:
    """Projects with their owners, by email of the owner and name."""
    query = owned_projects().where(
        *asked_for(
            (eq, col(ProjectV2.id), project_id),
            (eq, col(UserOAuth.email), user_email),
            (contains, col(ProjectV2.name), name),
        )
    )
    return await page_of(session, query, paging, ProjectReadSuperuser.model_validate)


@router.patch("/project/{project_id}/")
async def give_project_to_user(
    project_id: int, user_id: int, _: Superuser, session: SessionDep
) -> None:
    """Give a project to a new owner; the old one has no part in it any more."""
    project = await find(session, ProjectV2, project_id)
    user = await find(session, UserOAuth, user_id)
    await session.refresh(project, with_for_update=True)  # nobody is invited meanwhile
    if user.is_guest:
        raise RefusedError(f"User {user.email} is a guest, who owns nothing.")
    profile = await session.get(Profile, user.profile_id) if user.profile_id else None
    if profile is None or profile.resource_id != project.resource_id:
        raise RefusedError(f"User {user.email} has no profile on the resource of this project.")
    link = await session.get(LinkUserProjectV2, (project_id, user_id))
    if link is not None and link.is_owner:
        raise RefusedError(f"User {user.email} owns this project already.")
    if await owns_project_named(session, user_id, project.name):
        raise RefusedError(f"User {user.email} has a project {project.name!r} already.")
    folders = await session.exec(
        select(DatasetV2.zarr_dir).where(DatasetV2.project_id == project_id)
    )
    if foreign := [folder for folder in folders if not lies_in(folder, user.project_dirs)]:
        raise RefusedError(
            f"Datasets of this project are in {', '.join(foreign)}: first add that to the "
            f"project_dirs of user {user.email}."
        )
    await give_to(session, project_id, user_id)
    await session.commit()


@router.get("/linkuserproject/")
async def list_links(
    _: Superuser,
    session: SessionDep,
    paging: PagingDep,
    user_id: int | None = None,
    project_id: int | None = None,
    project_name: str | None = None,
    is_owner: bool | None = None,
    is_verified: bool | None = None,
) -> Page[LinkUserProjectRead]:
    """Who takes part in which project, or is invited."""
    query = links().where(
        *asked_for(
            (eq, col(UserOAuth.id), user_id),
            (eq, col(ProjectV2.id), project_id),
            (eq, col(LinkUserProjectV2.is_owner), is_owner),
            (eq, col(LinkUserProjectV2.is_verified), is_verified),
            (contains, col(ProjectV2.name), project_name),
        )
    )
    return await page_of(session, query, paging, LinkUserProjectRead.model_validate)


@router.post("/linkuserproject/verify/")
async def accept_for_guest_user(
    guest_user_id: int, project_id: int, _: Superuser, session: SessionDep
) -> None:
    """Accept an invitation for a guest user, who may not change anything."""
    user = await find(session, UserOAuth, guest_user_id)
    if not user.is_guest:
        raise RefusedError(f"User {user.email} is no guest user: they accept by themselves.")
    link = await session.get(LinkUserProjectV2, (project_id, guest_user_id))
    if link is None or link.is_verified:
        raise NotFoundError("An invitation to project", project_id)
    if link.permissions != "r":
        raise RefusedError(
            f"User {user.email} is invited with {link.permissions!r}: guest users can have 'r' "
            "only, which the owner of the project is to change."
        )
    await accept_invitation(session, project_id, guest_user_id)
