"""Who owns projects, and who may be given one. Nothing is committed."""

from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import RefusedError
from fractal_models.tables import DatasetV2, LinkUserProjectV2, Profile, ProjectV2, UserOAuth
from fractal_models.urls import lies_in


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


async def give_project(session: AsyncSession, project: ProjectV2, user: UserOAuth) -> None:
    """Make a user the owner of a project; the old owner has no part in it any more.

    Raises:
        RefusedError: the user cannot own it; the message says why.
    """
    await session.refresh(project, with_for_update=True)  # nobody is invited meanwhile
    await _require_can_own(session, project, user)
    of_project = col(LinkUserProjectV2.project_id) == project.id
    await session.exec(
        delete(LinkUserProjectV2).where(of_project, col(LinkUserProjectV2.user_id) == user.id)
    )
    await session.exec(
        update(LinkUserProjectV2)
        .where(of_project, col(LinkUserProjectV2.is_owner))
        .values(user_id=user.id)
    )


async def _require_can_own(session: AsyncSession, project: ProjectV2, user: UserOAuth) -> None:
    if user.is_guest:
        raise RefusedError(f"User {user.email} is a guest, who owns nothing.")
    profile = await session.get(Profile, user.profile_id) if user.profile_id else None
    if profile is None or profile.resource_id != project.resource_id:
        raise RefusedError(f"User {user.email} has no profile on the resource of this project.")
    link = await session.get(LinkUserProjectV2, (project.id, user.id))
    if link is not None and link.is_owner:
        raise RefusedError(f"User {user.email} owns this project already.")
    if await owns_project_named(session, user.id, project.name):
        raise RefusedError(f"User {user.email} has a project {project.name!r} already.")
    folders = await session.exec(
        select(DatasetV2.zarr_dir).where(DatasetV2.project_id == project.id)
    )
    if foreign := [folder for folder in folders if not lies_in(folder, user.project_dirs)]:
        raise RefusedError(
            f"Datasets of this project are in {', '.join(foreign)}: first add that to the "
            f"project_dirs of user {user.email}."
        )
