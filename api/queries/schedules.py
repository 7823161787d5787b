"""Schedules: rows of a project, what names in them stand for, and the jobs that they began."""

from collections.abc import Sequence
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import DatasetV2, JobV2, ProjectV2, Schedule, UserOAuth, WorkflowV2


class Names:
    """What is in a project, by name and id, as parameters of flow runs name it."""

    def __init__(self, found: Sequence[tuple[int | None, str]]) -> None:
        self._ids = {id_ for id_, _ in found}
        self._named = {name: id_ for id_, name in found}

    def id_of(self, text: object) -> int | None:
        """What has this name, or else this id; None if nothing has."""
        name = str(text)
        if name in self._named:
            return self._named[name]
        return int(name) if name.isdecimal() and int(name) in self._ids else None


async def schedules_of(session: AsyncSession, project: ProjectV2) -> list[tuple[Schedule, str]]:
    """The schedules of a project with the emails of their owners, by id."""
    found = await session.exec(
        select(Schedule, UserOAuth.email)
        .join(UserOAuth, col(UserOAuth.id) == col(Schedule.user_id))
        .where(Schedule.project_id == project.id, col(Schedule.deployment_id).is_not(None))
        .order_by(col(Schedule.id))
    )
    return list(found)


async def names_in(
    session: AsyncSession, project: ProjectV2, table: type[WorkflowV2] | type[DatasetV2]
) -> Names:
    """The names of the workflows or the datasets of a project."""
    found = await session.exec(select(table.id, table.name).where(table.project_id == project.id))
    return Names(found.all())


async def jobs_of(
    session: AsyncSession, flow_run_ids: Sequence[UUID]
) -> dict[UUID, tuple[int, str]]:
    """The ids and states of jobs, by their flow runs."""
    found = await session.exec(
        select(JobV2.flow_run_id, JobV2.id, JobV2.status).where(
            col(JobV2.flow_run_id).in_(flow_run_ids)
        )
    )
    return {run: (id_, status) for run, id_, status in found if run and id_}
