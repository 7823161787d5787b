"""Projects and what users share of them."""

from collections.abc import Callable, Iterable

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import DatasetV2, LinkUserProjectV2, ProjectV2, UserOAuth


async def projects_of(
    session: AsyncSession, user_id: int | None, *, is_owner: bool
) -> list[ProjectV2]:
    """The projects that a user owns, or those of others that they joined; by id."""
    found = await session.exec(
        select(ProjectV2)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .where(
            LinkUserProjectV2.user_id == user_id,
            LinkUserProjectV2.is_owner == is_owner,
            col(LinkUserProjectV2.is_verified),
        )
        .order_by(col(ProjectV2.id))
    )
    return list(found)


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


async def shared_zarr_dirs(session: AsyncSession, user_id: int | None) -> list[str]:
    """The folders of the datasets in others' projects that a user joined."""
    found = await session.exec(
        select(DatasetV2.zarr_dir)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(DatasetV2.project_id))
        .where(
            LinkUserProjectV2.user_id == user_id,
            col(LinkUserProjectV2.is_owner).is_(False),
            col(LinkUserProjectV2.is_verified),
        )
        .order_by(DatasetV2.zarr_dir)
        .distinct()
    )
    return list(found)


async def lost_zarr_dirs(
    session: AsyncSession, user: UserOAuth, project_dirs: Iterable[str]
) -> list[str]:
    """The folders of datasets of a user's projects that are in their project folders, but not in
    these new ones."""
    found = await session.exec(
        select(DatasetV2.zarr_dir)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(DatasetV2.project_id))
        .where(LinkUserProjectV2.user_id == user.id, col(LinkUserProjectV2.is_verified))
        .distinct()
    )
    before, after = _inside(user.project_dirs), _inside(project_dirs)
    return sorted(path for path in found if before(path) and not after(path))


def _inside(folders: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path is one of these folders or in one of them."""
    prefixes = tuple(f"{folder.rstrip('/')}/" for folder in folders)
    return lambda path: f"{path}/".startswith(prefixes)
