"""Users, with their groups and what is theirs."""

from typing import Any

from sqlalchemy import Integer, ScalarSelect, bindparam, null, or_
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.lists import list_document
from fractal_models.json_rows import json_array, json_object
from fractal_models.schemas.user import OAuthAccountRead, UserRead
from fractal_models.tables import (
    LinkUserGroup,
    LinkUserProjectV2,
    OAuthAccount,
    UserGroup,
    UserOAuth,
)

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
_PROFILE_ID = bindparam("profile_id", type_=Integer())
# The users as a `UserRead` has them, without their groups: all, or those with one profile.
USERS = list_document(
    UserRead,
    select(*_COLUMNS)
    .where(or_(_PROFILE_ID.is_(None), col(UserOAuth.profile_id) == _PROFILE_ID))
    .order_by(col(UserOAuth.id)),
)


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


def owner_email(project_id: Any) -> ScalarSelect[str]:
    """The email of the owner of a project, which a column of another query names."""
    link, user = aliased(LinkUserProjectV2), aliased(UserOAuth)
    return (
        select(user.email)
        .join(link, col(link.user_id) == col(user.id))
        .where(col(link.project_id) == project_id, col(link.is_owner))
        .scalar_subquery()
    )
