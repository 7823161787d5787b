"""User groups, with which tasks and templates are shared: who is in them. Nothing is committed."""

from typing import Any

from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import NotFoundError
from fractal_models.tables import LinkUserGroup, UserGroup
from fractal_models.tables.columns import now


async def default_group(session: AsyncSession, name: str) -> UserGroup:
    """The group that every user is in; it is made if it is not there."""
    await session.exec(
        insert(UserGroup).values(name=name, timestamp_created=now()).on_conflict_do_nothing()
    )
    return (await session.exec(select(UserGroup).where(UserGroup.name == name))).one()


async def set_groups(session: AsyncSession, user_id: int, group_ids: list[int]) -> None:
    """Make a user a member of just these groups.

    Raises:
        NotFoundError: there is no such group.
    """
    found = await session.exec(select(UserGroup.id).where(col(UserGroup.id).in_(group_ids)))
    if unknown := sorted(set(group_ids) - set(found)):
        raise NotFoundError("Group", unknown[0])
    await session.exec(
        delete(LinkUserGroup).where(
            col(LinkUserGroup.user_id) == user_id, col(LinkUserGroup.group_id).not_in(group_ids)
        )
    )
    links = [
        {"user_id": user_id, "group_id": group_id, "timestamp_created": now()}
        for group_id in group_ids
    ]
    await session.exec(insert(LinkUserGroup).values(links).on_conflict_do_nothing())


async def add_to_group(session: AsyncSession, user_id: int, group_id: int) -> bool:
    """Make a user a member of a group. False if they were one."""
    added = await session.exec(
        insert(LinkUserGroup)
        .values(user_id=user_id, group_id=group_id, timestamp_created=now())
        .on_conflict_do_nothing()
        .returning(col(LinkUserGroup.user_id))
    )
    return added.first() is not None


async def remove_from_group(session: AsyncSession, user_id: int, group_id: int) -> bool:
    """End a user's membership of a group. False if there was none."""
    removed = await session.exec(
        delete(LinkUserGroup)
        .where(col(LinkUserGroup.user_id) == user_id, col(LinkUserGroup.group_id) == group_id)
        .returning(col(LinkUserGroup.user_id))
    )
    return removed.first() is not None


async def members_by_group(session: AsyncSession, *where: Any) -> dict[int, list[int]]:
    """Ids of the members of those groups that have some, in order."""
    user_id = col(LinkUserGroup.user_id)
    members: Any = func.array_agg(aggregate_order_by(user_id, user_id))
    found = await session.exec(
        select(LinkUserGroup.group_id, members).where(*where).group_by(col(LinkUserGroup.group_id))
    )
    return dict(found.all())
