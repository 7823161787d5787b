"""SQL of schedules: their owners, what they have lost, which notices Prefect does not show yet."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, case, literal
from sqlmodel import and_, col, delete, func, or_, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from fractal_models.tables import (
    JobV2,
    LinkUserProjectV2,
    Profile,
    ProjectV2,
    Resource,
    Schedule,
    UserOAuth,
)
from fractal_models.tables.columns import now

# A workflow and a dataset, by their ids.
Runs = tuple[int | None, int | None]

# The API makes the deployment right after the row.
_TIME_OF_API = timedelta(seconds=60)


async def owner_of(session: AsyncSession, deployment_id: UUID | None) -> str | None:
    """The email of the user who owns the schedule of a deployment; None if it has no schedule."""
    found = await session.exec(
        select(UserOAuth.email)
        .join(Schedule, col(Schedule.user_id) == col(UserOAuth.id))
        .where(Schedule.deployment_id == deployment_id)
    )
    return found.first()


async def note(session: AsyncSession, deployment_id: UUID | None, notice: str) -> None:
    """Write a notice, because of which the schedule of a deployment is paused; commit.

    Does nothing if the deployment has no schedule.
    """
    await session.exec(
        update(Schedule)
        .where(col(Schedule.deployment_id) == deployment_id)
        .values(notice=notice, is_told=False)
    )
    await session.commit()


async def note_job(session: AsyncSession, deployment_id: UUID | None, job: JobV2) -> None:
    """Record that a schedule has begun a job, and commit.

    The notice for which the schedule was paused is removed. The ids of its workflow and dataset are
    taken from the job, because they may have been changed in Prefect.
    """
    await session.exec(
        update(Schedule)
        .where(col(Schedule.deployment_id) == deployment_id)
        .values(
            workflow_id=job.workflow_id,
            dataset_id=job.dataset_id,
            notice=None,
            is_told=and_(col(Schedule.is_told), col(Schedule.notice).is_(None)),
        )
    )
    await session.commit()


async def note_losses(session: AsyncSession, pool: str) -> None:
    """Write a notice on each schedule of a resource that has lost something it needs; commit."""
    loss = (
        select(col(Schedule.id), _loss().label("notice"))
        .join(ProjectV2, col(ProjectV2.id) == col(Schedule.project_id))
        .join(Resource, col(Resource.id) == col(ProjectV2.resource_id))
        .join(UserOAuth, col(UserOAuth.id) == col(Schedule.user_id))
        .outerjoin(
            LinkUserProjectV2,
            and_(
                col(LinkUserProjectV2.project_id) == col(Schedule.project_id),
                col(LinkUserProjectV2.user_id) == col(Schedule.user_id),
            ),
        )
        .outerjoin(Profile, col(Profile.id) == col(UserOAuth.profile_id))
        .where(
            Resource.work_pool == pool,
            col(Schedule.notice).is_(None),
            col(Schedule.deployment_id).is_not(None),
        )
        .subquery()
    )
    await session.exec(
        update(Schedule)
        .where(col(Schedule.id) == loss.c.id, loss.c.notice.is_not(None))
        .values(notice=loss.c.notice, is_told=False)
        .execution_options(synchronize_session=False)
    )
    await session.commit()


def _loss() -> ColumnElement[str | None]:
    """An SQL expression: what a schedule has lost, as a sentence, or null."""
    user, project = UserOAuth.email, ProjectV2.name
    waits = col(Schedule.automation_id).is_not(None)
    awaited = or_(
        col(Schedule.after_workflow_id).is_(None), col(Schedule.after_dataset_id).is_(None)
    )
    link = LinkUserProjectV2
    may_run = and_(
        col(link.is_verified),
        func.strpos(link.permissions, "x") > 0,
        col(UserOAuth.is_guest).is_(False),
    )
    return case(
        (col(Schedule.workflow_id).is_(None), literal("Its workflow was deleted.")),
        (col(Schedule.dataset_id).is_(None), literal("Its dataset was deleted.")),
        (and_(waits, awaited), literal("The workflow or dataset that it waits for was deleted.")),
        (col(UserOAuth.is_active).is_(False), func.concat("User ", user, " is not active.")),
        (col(UserOAuth.is_verified).is_(False), func.concat("User ", user, " is not verified.")),
        (
            func.coalesce(may_run, False).is_(False),
            func.concat("User ", user, " may not run jobs in project ", project, " any more."),
        ),
        (
            func.coalesce(col(Profile.resource_id) == col(Resource.id), False).is_(False),
            func.concat("User ", user, " has no profile for resource ", Resource.name, "."),
        ),
    )


async def deployments_of(session: AsyncSession, pool: str) -> list[UUID]:
    """The deployments of a resource's schedules."""
    found = await session.exec(_of_resource(pool))
    return [each.deployment_id for each in found if each.deployment_id is not None]


async def untold(session: AsyncSession, pool: str) -> Sequence[Schedule]:
    """The schedules of a resource whose latest notice is not yet in Prefect."""
    found = await session.exec(_of_resource(pool).where(col(Schedule.is_told).is_(False)))
    return found.all()


def _of_resource(pool: str) -> SelectOfScalar[Schedule]:
    return (
        select(Schedule)
        .join(ProjectV2, col(ProjectV2.id) == col(Schedule.project_id))
        .join(Resource, col(Resource.id) == col(ProjectV2.resource_id))
        .where(Resource.work_pool == pool)
    )


async def told(session: AsyncSession, schedule: Schedule) -> None:
    """Record that Prefect has this notice, unless a newer one was written meanwhile; commit."""
    await session.exec(
        update(Schedule)
        .where(
            col(Schedule.id) == schedule.id,
            col(Schedule.notice).is_not_distinct_from(schedule.notice),
        )
        .values(is_told=True)
    )
    await session.commit()


async def abandoned(session: AsyncSession) -> Sequence[Schedule]:
    """Schedules whose project was deleted, or whose creation was broken off."""
    unfinished = and_(
        col(Schedule.deployment_id).is_(None),
        col(Schedule.timestamp_created) < now() - _TIME_OF_API,
    )
    found = await session.exec(
        select(Schedule).where(or_(col(Schedule.project_id).is_(None), unfinished))
    )
    return found.all()


async def forget(session: AsyncSession, schedule: Schedule) -> None:
    """Delete the row of a schedule that has no deployment any more, and commit."""
    await session.exec(delete(Schedule).where(col(Schedule.id) == schedule.id))
    await session.commit()


async def follows(
    session: AsyncSession, project_id: int | None, other_than: int | None
) -> list[tuple[Runs, Runs]]:
    """For each schedule that waits for a job: what it waits for, and what it runs."""
    found = await session.exec(
        select(Schedule).where(
            Schedule.project_id == project_id,
            col(Schedule.id).is_distinct_from(other_than),
            col(Schedule.after_workflow_id).is_not(None),
        )
    )
    pairs = [
        ((each.after_workflow_id, each.after_dataset_id), (each.workflow_id, each.dataset_id))
        for each in found
    ]
    return [(after, runs) for after, runs in pairs if None not in (*after, *runs)]
