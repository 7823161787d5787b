"""Sharing of projects: owners invite guests, who accept, and leave again."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response, status
from pydantic import EmailStr
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api import lists
from api.queries.users import owner_email
from api.rights import OwnProject, ReadableProject
from api.services import Contributor, SessionDep, Superuser, UserManagerDep, VerifiedUser
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.rights import find
from fractal_models.schemas.base import Page
from fractal_models.schemas.sharing import (
    LinkUserProjectRead,
    ProjectAccessRead,
    ProjectGuestCreate,
    ProjectGuestRead,
    ProjectGuestUpdate,
    ProjectInvitationRead,
)
from fractal_models.tables import LinkUserProjectV2, ProjectV2, UserOAuth

router = APIRouter(prefix="/api/v2/project", tags=["Sharing"])
router_of_all = APIRouter(prefix="/admin/v2/linkuserproject", tags=["Administration"])

_LINK = LinkUserProjectV2


async def _named_user(_: OwnProject, email: EmailStr, users: UserManagerDep) -> UserOAuth:
    user = await users.user_db.get_by_email(email)
    if user is None:
        raise NotFoundError("User", email)
    return user


_NamedUser = Annotated[UserOAuth, Depends(_named_user)]


async def _locked_link(
    session: AsyncSession, project_id: int | None, user: UserOAuth
) -> LinkUserProjectV2 | None:
    """A user's part in a project, or an invitation, kept as it is until the transaction ends."""
    key = (project_id, user.id)
    return await session.get(_LINK, key, with_for_update=True, populate_existing=True)


async def _guest_link(
    project: OwnProject, guest: _NamedUser, session: SessionDep
) -> LinkUserProjectV2:
    link = await _locked_link(session, project.id, guest)
    if link is None:
        raise NotFoundError("Guest", guest.email)
    if link.is_owner:
        raise RefusedError("You own this project: you are no guest in it.")
    return link


_GuestLink = Annotated[LinkUserProjectV2, Depends(_guest_link)]


@router.get("/invitation/")
async def list_invitations(user: VerifiedUser, session: SessionDep) -> list[ProjectInvitationRead]:
    """The invitations that the user has yet to accept; those of a guest user, others accept."""
    if user.is_guest:
        return []
    found = await session.execute(
        select(
            col(ProjectV2.id).label("project_id"),
            col(ProjectV2.name).label("project_name"),
            col(_LINK.permissions).label("guest_permissions"),
            owner_email(ProjectV2.id).label("owner_email"),
        )
        .join(_LINK, col(_LINK.project_id) == col(ProjectV2.id))
        .where(_LINK.user_id == user.id, col(_LINK.is_verified).is_(False))
        .order_by(ProjectV2.name, col(ProjectV2.id))
    )
    return [ProjectInvitationRead.model_validate(row) for row in found]


@router.get("/{project_id}/access/")
async def read_access(
    project: ReadableProject, user: VerifiedUser, session: SessionDep
) -> ProjectAccessRead:
    """What the user may do in a project, and whose it is."""
    found = await session.execute(
        select(
            _LINK.is_owner,
            _LINK.permissions,
            owner_email(_LINK.project_id).label("owner_email"),
        ).where(_LINK.project_id == project.id, _LINK.user_id == user.id)
    )
    return ProjectAccessRead.model_validate(found.one())


@router.post("/{project_id}/access/accept/")
async def accept_project_invitation(
    project_id: int, user: Contributor, session: SessionDep
) -> None:
    invitation = await _invitation(session, project_id, user)
    invitation.is_verified = True
    await session.commit()


@router.delete("/{project_id}/access/", status_code=status.HTTP_204_NO_CONTENT)
async def leave_project(project_id: int, user: Contributor, session: SessionDep) -> None:
    """Stop being a guest of a project, or decline an invitation."""
    link = await _locked_link(session, project_id, user)
    if link is None:
        raise NotFoundError("Project", project_id)
    if link.is_owner:
        raise RefusedError("You own this project: ask an administrator to give it to another.")
    await session.delete(link)
    await session.commit()


@router.get("/{project_id}/guest/")
async def list_guests(project: OwnProject, session: SessionDep) -> list[ProjectGuestRead]:
    """The guests of a project, also those who have yet to accept, by email."""
    found = await session.execute(
        select(UserOAuth.email, _LINK.is_verified, _LINK.permissions)
        .join(_LINK, col(_LINK.user_id) == col(UserOAuth.id))
        .where(_LINK.project_id == project.id, col(_LINK.is_owner).is_(False))
        .order_by(UserOAuth.email)
    )
    return [ProjectGuestRead.model_validate(row) for row in found]


@router.post("/{project_id}/guest/", status_code=status.HTTP_201_CREATED)
async def invite_guest(
    project: OwnProject, invited: _NamedUser, request: ProjectGuestCreate, session: SessionDep
) -> None:
    """Invite a user by email; until they accept, they have no part in the project."""
    added = await session.exec(
        insert(_LINK)
        .values(
            project_id=project.id,
            user_id=invited.id,
            is_owner=False,
            is_verified=False,
            permissions=request.permissions,
        )
        .on_conflict_do_nothing()
        .returning(col(_LINK.user_id))
    )
    if added.first() is None:
        raise RefusedError(f"User {invited.email} takes part in this project, or is invited.")
    await session.commit()


@router.patch("/{project_id}/guest/")
async def update_guest(link: _GuestLink, changes: ProjectGuestUpdate, session: SessionDep) -> None:
    """Change what a guest may do."""
    link.permissions = changes.permissions
    await session.commit()


@router.delete("/{project_id}/guest/", status_code=status.HTTP_204_NO_CONTENT)
async def remove_guest_from_project(link: _GuestLink, session: SessionDep) -> None:
    """End a guest's part in a project, or take back an invitation; their jobs go on."""
    await session.delete(link)
    await session.commit()


# --- for administrators ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkFilters:
    """Whose part in which project is asked for."""

    user_id: Annotated[int | None, lists.equals(UserOAuth.id)] = None
    project_id: Annotated[int | None, lists.equals(ProjectV2.id)] = None
    project_name: Annotated[str | None, lists.contains(ProjectV2.name)] = None
    is_owner: Annotated[bool | None, lists.equals(_LINK.is_owner)] = None
    is_verified: Annotated[bool | None, lists.equals(_LINK.is_verified)] = None


@router_of_all.get("/", response_model=Page[LinkUserProjectRead])
async def list_links(
    filters: Annotated[LinkFilters, lists.filters(LinkFilters)],
    _: Superuser,
    session: SessionDep,
    paging: lists.PagingDep,
) -> Response:
    """Who takes part in which project, or is invited."""
    query = _links().where(*lists.asked_for(filters))
    return await lists.page_of(session, LinkUserProjectRead, query, paging)


@router_of_all.post("/verify/")
async def accept_for_guest_user(
    guest_user_id: int, project_id: int, _: Superuser, session: SessionDep
) -> None:
    """Accept an invitation for a guest user, who may not change anything."""
    user = await find(session, UserOAuth, guest_user_id)
    if not user.is_guest:
        raise RefusedError(f"User {user.email} is no guest user: they accept by themselves.")
    invitation = await _invitation(session, project_id, user)
    if invitation.permissions != "r":
        raise RefusedError(
            f"User {user.email} is invited with {invitation.permissions!r}: guest users can have "
            "'r' only, which the owner of the project is to change."
        )
    invitation.is_verified = True
    await session.commit()


async def _invitation(session: AsyncSession, project_id: int, user: UserOAuth) -> LinkUserProjectV2:
    """One that waits to be accepted."""
    link = await _locked_link(session, project_id, user)
    if link is None or link.is_verified:
        raise NotFoundError("An invitation to project", project_id)
    return link


def _links() -> Select[Any]:
    """Everyone's part in every project, by email and name of the project."""
    columns: list[Any] = [
        _LINK.user_id,
        col(UserOAuth.email).label("user_email"),
        _LINK.project_id,
        col(ProjectV2.name).label("project_name"),
        _LINK.is_verified,
        _LINK.is_owner,
        _LINK.permissions,
    ]
    query: Select[Any] = (
        select(*columns)
        .select_from(UserOAuth)
        .join(_LINK, col(_LINK.user_id) == col(UserOAuth.id))
        .join(ProjectV2, col(ProjectV2.id) == col(_LINK.project_id))
        .order_by(UserOAuth.email, ProjectV2.name, col(ProjectV2.id))
    )
    return query
