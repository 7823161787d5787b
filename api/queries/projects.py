"""Projects and what users share of them."""

from typing import Any

from sqlalchemy import Select
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import DatasetV2, LinkUserProjectV2, ProjectV2, UserOAuth


async def projects_of(
    session: AsyncSession, user_id: int | None, *, is_owner: bool
) -> list[ProjectV2]:
    """The projects that a user owns, or those of others that they joined.

    Those with a star come first, and then the newest.
    """
    found = await session.exec(
        select(ProjectV2)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .where(
            LinkUserProjectV2.user_id == user_id,
            LinkUserProjectV2.is_owner == is_owner,
            col(LinkUserProjectV2.is_verified),
        )
        .order_by(col(ProjectV2.is_starred).desc(), col(ProjectV2.id).desc())
    )
    return list(found)


def owned_projects() -> Select[Any]:
    """Every project with the email of its owner, by these."""
    columns: list[Any] = list(ProjectV2.metadata.tables["projectv2"].c)
    columns.append(col(UserOAuth.email).label("user_email"))
    query: Select[Any] = (
        select(*columns)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .join(UserOAuth, col(UserOAuth.id) == col(LinkUserProjectV2.user_id))
        .where(col(LinkUserProjectV2.is_owner))
        .order_by(UserOAuth.email, ProjectV2.name, col(ProjectV2.id))
    )
    return query


async def owns_project_named(session: AsyncSession, user_id: int | None, name: str) -> bool:
    """Whether a user owns a project of this name."""
    found = await session.exec(
        select(ProjectV2.id)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .where(
            LinkUserProjectV2.user_id == user_id,
            col(LinkUserProjectV2.is_owner),
            ProjectV2.name == name,
        )
    )
    return found.first() is not None


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
