"""Users and their groups."""

from typing import Any

from sqlalchemy import ScalarSelect, Select, null
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.lists import json_array, json_object
from fractal_models.errors import NotFoundError
from fractal_models.schemas.user import OAuthAccountRead, UserRead
from fractal_models.tables import (
    DatasetV2,
    LinkUserGroup,
    LinkUserProjectV2,
    OAuthAccount,
    UserGroup,
    UserOAuth,
)
from fractal_models.tables.columns import now

_ACCOUNTS = (
    select(json_array(json_object(OAuthAccountRead, OAuthAccount), OAuthAccount.id))
    .where(OAuthAccount.user_id == UserOAuth.id)
    .correlate(UserOAuth)
    .scalar_subquery()
)
_COLUMNS: list[Any] = [
    *UserOAuth.metadata.tables["user_oauth"].c,
    _ACCOUNTS.label("oauth_accounts"),
    null().label("group_ids_names"),
]
# The users as a `UserRead` has them, without their groups.
USERS: Select[Any] = select(*_COLUMNS).order_by(col(UserOAuth.id))


async def default_group(session: AsyncSession, name: str) -> UserGroup:
    """The group that every user is in; it is made if it is not there (and not committed)."""
    await session.exec(
        insert(UserGroup).values(name=name, timestamp_created=now()).on_conflict_do_nothing()
    )
    return (await session.exec(select(UserGroup).where(UserGroup.name == name))).one()


async def with_groups(session: AsyncSession, user: UserOAuth, default: str) -> UserRead:
    """A user with the id and name of each of their groups, the default one first."""
    found = await session.exec(
        select(col(UserGroup.id), col(UserGroup.name))
        .join(LinkUserGroup, col(LinkUserGroup.group_id) == col(UserGroup.id))
        .where(LinkUserGroup.user_id == user.id)
        .order_by(col(UserGroup.name) != default, col(UserGroup.id))
    )
    groups = [(group_id, name) for group_id, name in found]
    return UserRead.model_validate(user).model_copy(update={"group_ids_names": groups})


async def set_groups(session: AsyncSession, user_id: int, group_ids: list[int]) -> None:
    """Make a user a member of just these groups (not committed).

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
    """Make a user a member of a group (not committed). False if they were one."""
    added = await session.exec(
        insert(LinkUserGroup)
        .values(user_id=user_id, group_id=group_id, timestamp_created=now())
        .on_conflict_do_nothing()
        .returning(col(LinkUserGroup.user_id))
    )
    return added.first() is not None


async def remove_from_group(session: AsyncSession, user_id: int, group_id: int) -> bool:
    """End a user's membership of a group (not committed). False if there was none."""
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


def owner_email(project_id: Any) -> ScalarSelect[str]:
    """The email of the owner of a project, which a column of another query names."""
    link, user = aliased(LinkUserProjectV2), aliased(UserOAuth)
    return (
        select(user.email)
        .join(link, col(link.user_id) == col(user.id))
        .where(col(link.project_id) == project_id, col(link.is_owner))
        .scalar_subquery()
    )


async def zarr_dirs_of(session: AsyncSession, user_id: int | None) -> list[str]:
    """The folders of the datasets in projects that a user owns or joined."""
    found = await session.exec(
        select(DatasetV2.zarr_dir)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(DatasetV2.project_id))
        .where(
            LinkUserProjectV2.user_id == user_id,
            col(LinkUserProjectV2.is_verified),
        )
        .order_by(DatasetV2.zarr_dir)
        .distinct()
    )
    return list(found)
