"""Projects, and what is in them, by name or number."""

from collections.abc import Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import JobRefusedError, NotFoundError
from fractal_models.rights import Right, dataset_in, project_with_right, workflow_in
from fractal_models.tables import DatasetV2, LinkUserProjectV2, ProjectV2, UserOAuth, WorkflowV2

# Each of these raises NotFoundError if nothing has the name, ForbiddenError if the user lacks the
# right, and JobRefusedError if the name is that of several.


async def project_named(
    session: AsyncSession, user: UserOAuth, name: str, right: Right
) -> ProjectV2:
    """The project with this name, or else with this number, in which the user has the right."""
    found = await session.exec(
        select(ProjectV2.id)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(ProjectV2.id))
        .where(LinkUserProjectV2.user_id == user.id, col(LinkUserProjectV2.is_verified))
        .where(ProjectV2.name == name)
    )
    return await project_with_right(session, user, _the_one("Project", name, found.all()), right)


async def workflow_named(session: AsyncSession, project: ProjectV2, name: str) -> WorkflowV2:
    """The workflow of a project with this name, or else with this number."""
    return await workflow_in(
        session, project, await _id_in_project(session, project, WorkflowV2, name)
    )


async def dataset_named(session: AsyncSession, project: ProjectV2, name: str) -> DatasetV2:
    """The dataset of a project with this name, or else with this number."""
    return await dataset_in(
        session, project, await _id_in_project(session, project, DatasetV2, name)
    )


async def _id_in_project(
    session: AsyncSession, project: ProjectV2, table: type[WorkflowV2] | type[DatasetV2], name: str
) -> int:
    found = await session.exec(
        select(table.id).where(table.project_id == project.id, table.name == name)
    )
    return _the_one(table.__name__.removesuffix("V2"), name, found.all())


def _the_one(what: str, name: str, ids: Sequence[int | None]) -> int:
    """The id of the object with this name; if none has the name, the name read as an id.

    Raises:
        NotFoundError: no object has this name, and it is not a number.
        JobRefusedError: several objects have this name.
    """
    named = sorted(id_ for id_ in ids if id_ is not None)
    if len(named) > 1:
        told = ", ".join(map(str, named))
        raise JobRefusedError(f"{what} {name!r} could be any of these: {told}. Give the number.")
    if named:
        return named[0]
    if not name.isdecimal():
        raise NotFoundError(what, repr(name))
    return int(name)
