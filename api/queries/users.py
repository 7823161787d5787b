"""Users and their groups."""

from collections import defaultdict
from datetime import datetime
from operator import ge, le
from typing import Any

from sqlalchemy import Result
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries.conditions import asked_for
from fractal_models.errors import NotFoundError
from fractal_models.schemas.user import UserRead
from fractal_models.tables import JobV2, LinkUserGroup, Profile, UserGroup, UserOAuth
from fractal_models.tables.columns import now


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


async def members_by_group(session: AsyncSession) -> dict[int, list[int]]:
    """Ids of the members of every group that has some."""
    found = await session.exec(
        select(LinkUserGroup.group_id, LinkUserGroup.user_id).order_by(col(LinkUserGroup.user_id))
    )
    members: dict[int, list[int]] = defaultdict(list)
    for group_id, user_id in found:
        members[group_id].append(user_id)
    return members


async def members_of(session: AsyncSession, group_id: int) -> list[int]:
    """Ids of the members of a group."""
    found = await session.exec(
        select(LinkUserGroup.user_id)
        .where(LinkUserGroup.group_id == group_id)
        .order_by(col(LinkUserGroup.user_id))
    )
    return list(found)


async def table_of_users(
    session: AsyncSession, since: datetime | None, until: datetime | None, *, only_with_jobs: bool
) -> Result[Any]:
    """The users with a profile, by email, and how many jobs they started in a time.

    Where a cell holds several values, | stands between them.
    """
    jobs = (
        select(JobV2.user_email, func.count().label("count"))
        .group_by(col(JobV2.user_email))
        .where(
            *asked_for(
                (ge, col(JobV2.start_timestamp), since), (le, col(JobV2.start_timestamp), until)
            )
        )
        .subquery()
    )
    groups = (
        select(LinkUserGroup.user_id, func.string_agg(UserGroup.name, "|").label("names"))
        .join(UserGroup, col(UserGroup.id) == col(LinkUserGroup.group_id))
        .group_by(col(LinkUserGroup.user_id))
        .subquery()
    )
    accounts = select(func.jsonb_array_elements_text(UserOAuth.slurm_accounts)).scalar_subquery()
    columns: list[Any] = [
        UserOAuth.id,
        UserOAuth.email,
        col(Profile.username).label("slurm_username"),
        func.array_to_string(func.array(accounts), "|").label("slurm_accounts"),
        func.array_to_string(UserOAuth.project_dirs, "|").label("project_dirs"),
        groups.c.names.label("user_groups"),
        func.coalesce(jobs.c.count, 0).label("num_jobs"),
    ]
    return await session.execute(
        select(*columns)
        .join(Profile, col(Profile.id) == col(UserOAuth.profile_id))
        .outerjoin(groups, groups.c.user_id == col(UserOAuth.id))
        .join(jobs, jobs.c.user_email == col(UserOAuth.email), isouter=not only_with_jobs)
        .order_by(col(UserOAuth.email))
    )
