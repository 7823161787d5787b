"""The folders of users (`project_dirs`), and those of the datasets that lie in them."""

from collections.abc import Iterable

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import RefusedError
from fractal_models.tables import DatasetV2, LinkUserProjectV2, UserOAuth
from fractal_models.urls import lies_in


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


async def require_datasets_inside(
    session: AsyncSession, user: UserOAuth, project_dirs: Iterable[str]
) -> None:
    """Refuse new folders of a user that leave out a dataset which lies in those of now.

    Raises:
        RefusedError: names one such dataset.
    """
    before = [
        path for path in await zarr_dirs_of(session, user.id) if lies_in(path, user.project_dirs)
    ]
    if lost := [path for path in before if not lies_in(path, project_dirs)]:
        raise RefusedError(
            f"{len(lost)} folders of datasets of {user.email} would be in none of the project_dirs "
            f"any more, e.g. {lost[0]}."
        )
