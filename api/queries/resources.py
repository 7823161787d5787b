"""What hangs on resources and profiles."""

from typing import NamedTuple

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import Profile, ProjectV2, TaskGroupV2


class ResourceUsers(NamedTuple):
    """How many rows of each kind refer to a resource."""

    projects: int
    profiles: int
    task_groups: int


async def count_users_of_resource(session: AsyncSession, resource_id: int) -> ResourceUsers:
    """What would keep a resource from being deleted."""
    counts = [
        select(func.count()).where(column == resource_id).scalar_subquery()
        for column in (
            col(ProjectV2.resource_id),
            col(Profile.resource_id),
            col(TaskGroupV2.resource_id),
        )
    ]
    projects, profiles, task_groups = (await session.execute(select(*counts))).one()
    return ResourceUsers(projects, profiles, task_groups)
