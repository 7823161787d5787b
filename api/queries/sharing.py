"""Who takes part in which project, and with what permissions."""

from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import NotFoundError
from fractal_models.schemas.sharing import (
    Permissions,
)
from fractal_models.tables import LinkUserProjectV2, UserOAuth

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
    """Make of an invited user a guest.

    Raises:
        NotFoundError: there is no invitation that waits for this.
    """
    waits = col(_LINK.is_verified).is_(False)
    if not await change_guest(session, project_id, user_id, waits, is_verified=True):
        raise NotFoundError("An invitation to project", project_id)


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


def _as_guest(project_id: int | None, user_id: int | None) -> tuple[ColumnElement[bool], ...]:
    return (
        col(_LINK.project_id) == project_id,
        col(_LINK.user_id) == user_id,
        col(_LINK.is_owner).is_(False),
    )
