"""Who takes part in which project, and with what permissions."""

from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import NotFoundError
from fractal_models.schemas.sharing import (
    Permissions,
    ProjectAccessRead,
    ProjectGuestRead,
    ProjectInvitationRead,
)
from fractal_models.tables import LinkUserProjectV2, ProjectV2, UserOAuth

_LINK = LinkUserProjectV2


def owner_email(project_id: Any) -> ScalarSelect[str]:
    """The email of the owner of a project, which a column of another query names."""
    link, user = aliased(LinkUserProjectV2), aliased(UserOAuth)
    return (
        select(user.email)
        .join(link, col(link.user_id) == col(user.id))
        .where(col(link.project_id) == project_id, col(link.is_owner))
        .scalar_subquery()
    )


async def guests_of(session: AsyncSession, project_id: int | None) -> list[ProjectGuestRead]:
    """The guests of a project, also those who have yet to accept, by email."""
    found = await session.execute(
        select(UserOAuth.email, _LINK.is_verified, _LINK.permissions)
        .join(_LINK, col(_LINK.user_id) == col(UserOAuth.id))
        .where(_LINK.project_id == project_id, col(_LINK.is_owner).is_(False))
        .order_by(UserOAuth.email)
    )
    return [ProjectGuestRead.model_validate(row) for row in found]


async def invitations_of(session: AsyncSession, user_id: int | None) -> list[ProjectInvitationRead]:
    """What a user has yet to accept, by the name of the project."""
    found = await session.execute(
        select(
            col(ProjectV2.id).label("project_id"),
            col(ProjectV2.name).label("project_name"),
            col(_LINK.permissions).label("guest_permissions"),
            owner_email(ProjectV2.id).label("owner_email"),
        )
        .join(_LINK, col(_LINK.project_id) == col(ProjectV2.id))
        .where(_LINK.user_id == user_id, col(_LINK.is_verified).is_(False))
        .order_by(ProjectV2.name, col(ProjectV2.id))
    )
    return [ProjectInvitationRead.model_validate(row) for row in found]


async def access_of(
    session: AsyncSession, project_id: int | None, user_id: int | None
) -> ProjectAccessRead:
    """What a user may do in a project in which they take part."""
    found = await session.execute(
        select(
            _LINK.is_owner, _LINK.permissions, owner_email(_LINK.project_id).label("owner_email")
        ).where(_LINK.project_id == project_id, _LINK.user_id == user_id)
    )
    return ProjectAccessRead.model_validate(found.one())


async def invite(
    session: AsyncSession, project_id: int | None, user_id: int | None, permissions: Permissions
) -> bool:
    """Invite a user into a project (not committed). False if they take part, or are invited."""
    added = await session.exec(
        insert(_LINK)
        .values(
            project_id=project_id,
            user_id=user_id,
            is_owner=False,
            is_verified=False,
            permissions=permissions,
        )
        .on_conflict_do_nothing()
        .returning(col(_LINK.user_id))
    )
    return added.first() is not None


async def accept_invitation(
    session: AsyncSession, project_id: int | None, user_id: int | None
) -> None:
    """Make of an invited user a guest, and commit.

    Raises:
        NotFoundError: there is no invitation that waits for this.
    """
    waits = col(_LINK.is_verified).is_(False)
    if not await change_guest(session, project_id, user_id, waits, is_verified=True):
        raise NotFoundError("An invitation to project", project_id)
    await session.commit()


async def change_guest(
    session: AsyncSession,
    project_id: int | None,
    user_id: int | None,
    *where: ColumnElement[bool],
    **changes: Any,
) -> bool:
    """Change a guest's part in a project (not committed). False if the user has none."""
    changed = await session.exec(
        update(_LINK)
        .where(*_as_guest(project_id, user_id), *where)
        .values(**changes)
        .returning(col(_LINK.user_id))
    )
    return changed.first() is not None


async def remove_guest(session: AsyncSession, project_id: int | None, user_id: int | None) -> bool:
    """End a guest's part in a project, or an invitation (not committed). False if none was."""
    removed = await session.exec(
        delete(_LINK).where(*_as_guest(project_id, user_id)).returning(col(_LINK.user_id))
    )
    return removed.first() is not None


async def give_to(session: AsyncSession, project_id: int | None, user_id: int | None) -> None:
    """Make a user the owner of a project, whose row is locked (not committed).

    Who owned it before has no part in it any more.
    """
    await remove_guest(session, project_id, user_id)
    await session.exec(
        update(_LINK)
        .where(col(_LINK.project_id) == project_id, col(_LINK.is_owner))
        .values(user_id=user_id)
    )


def links() -> Select[Any]:
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


def _as_guest(project_id: int | None, user_id: int | None) -> tuple[ColumnElement[bool], ...]:
    return (
        col(_LINK.project_id) == project_id,
        col(_LINK.user_id) == user_id,
        col(_LINK.is_owner).is_(False),
    )
