"""Sharing of projects: owners invite guests, who accept, and leave again."""

from typing import Annotated

from fastapi import APIRouter, Depends, status
from pydantic import EmailStr

from api.dependencies import (
    Contributor,
    OwnProject,
    ReadableProject,
    SessionDep,
    UserManagerDep,
    VerifiedUser,
)
from api.queries.sharing import (
    accept_invitation,
    access_of,
    change_guest,
    guests_of,
    invitations_of,
    invite,
    remove_guest,
)
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.schemas.sharing import (
    ProjectAccessRead,
    ProjectGuestCreate,
    ProjectGuestRead,
    ProjectGuestUpdate,
    ProjectInvitationRead,
)
from fractal_models.tables import LinkUserProjectV2, UserOAuth

router = APIRouter(prefix="/api/v2/project", tags=["Sharing"])


async def _named_user(_: OwnProject, email: EmailStr, users: UserManagerDep) -> UserOAuth:
    user = await users.user_db.get_by_email(email)
    if user is None:
        raise NotFoundError("User", email)
    return user


_NamedUser = Annotated[UserOAuth, Depends(_named_user)]


async def _guest(guest: _NamedUser, owner: VerifiedUser) -> UserOAuth:
    if guest.id == owner.id:
        raise RefusedError("You own this project: you are no guest in it.")
    return guest


_Guest = Annotated[UserOAuth, Depends(_guest)]


@router.get("/invitation/")
async def list_invitations(user: VerifiedUser, session: SessionDep) -> list[ProjectInvitationRead]:
    """The invitations that the user has yet to accept; those of a guest user, others accept."""
    return [] if user.is_guest else await invitations_of(session, user.id)


@router.get("/{project_id}/access/")
async def read_access(
    project: ReadableProject, user: VerifiedUser, session: SessionDep
) -> ProjectAccessRead:
    """What the user may do in a project, and whose it is."""
    return await access_of(session, project.id, user.id)


@router.post("/{project_id}/access/accept/")
async def accept_project_invitation(
    project_id: int, user: Contributor, session: SessionDep
) -> None:
    await accept_invitation(session, project_id, user.id)


@router.delete("/{project_id}/access/", status_code=status.HTTP_204_NO_CONTENT)
async def leave_project(project_id: int, user: Contributor, session: SessionDep) -> None:
    """Stop being a guest of a project, or decline an invitation."""
    if not await remove_guest(session, project_id, user.id):
        if await session.get(LinkUserProjectV2, (project_id, user.id)) is None:
            raise NotFoundError("Project", project_id)
        raise RefusedError("You own this project: ask an administrator to give it to another.")
    await session.commit()


@router.get("/{project_id}/guest/")
async def list_guests(project: OwnProject, session: SessionDep) -> list[ProjectGuestRead]:
    """The guests of a project, also those who have yet to accept."""
    return await guests_of(session, project.id)


@router.post("/{project_id}/guest/", status_code=status.HTTP_201_CREATED)
async def invite_guest(
    project: OwnProject, invited: _NamedUser, request: ProjectGuestCreate, session: SessionDep
) -> None:
    """Invite a user by email; until they accept, they have no part in the project."""
    if not await invite(session, project.id, invited.id, request.permissions):
        raise RefusedError(f"User {invited.email} takes part in this project, or is invited.")
    await session.commit()


@router.patch("/{project_id}/guest/")
async def update_guest(
    project: OwnProject, guest: _Guest, changes: ProjectGuestUpdate, session: SessionDep
) -> None:
    """Change what a guest may do."""
    if not await change_guest(session, project.id, guest.id, permissions=changes.permissions):
        raise NotFoundError("Guest", guest.email)
    await session.commit()


@router.delete("/{project_id}/guest/", status_code=status.HTTP_204_NO_CONTENT)
async def remove_guest_from_project(
    project: OwnProject, guest: _Guest, session: SessionDep
) -> None:
    """End a guest's part in a project, or take back an invitation; their jobs go on."""
    if not await remove_guest(session, project.id, guest.id):
        raise NotFoundError("Guest", guest.email)
    await session.commit()
