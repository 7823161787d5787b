"""What goes on and what has ended lately: jobs, and activities of task groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import JobV2, TaskGroupActivityV2, UserOAuth

# In the order in which they are told.
_OF_JOBS = ("submitted", "done", "failed")
_OF_ACTIVITIES = ("ongoing", "pending", "OK", "failed")
_GOING_ON = {"submitted", "ongoing", "pending"}


@dataclass(frozen=True)
class Recent:
    """A job or an activity; `what` tells which one, and whose."""

    what: str
    status: str
    begin: datetime
    end: datetime | None

    @property
    def goes_on(self) -> bool:
        return self.status in _GOING_ON

    def __str__(self) -> str:
        return f"{self.what}: {self.status}, {_told(self.begin)} to {_told(self.end)}"


async def recent_jobs(session: AsyncSession, minutes: int) -> list[Recent]:
    """The jobs that have not ended, or in the last minutes."""
    columns: list[Any] = [JobV2.id, JobV2.user_email, JobV2.status]
    columns += [JobV2.start_timestamp, JobV2.end_timestamp]
    ended_lately = col(JobV2.end_timestamp) >= _ago(minutes)
    found = await session.execute(
        select(*columns).where(or_(JobV2.status == "submitted", ended_lately))
    )
    jobs = [
        Recent(f"Job {job_id} of {email}", status, begin, end)
        for job_id, email, status, begin, end in found
    ]
    return _ordered(jobs, _OF_JOBS)


async def recent_activities(session: AsyncSession, minutes: int) -> list[Recent]:
    """The activities of task groups that have not ended, or in the last minutes."""
    activity = TaskGroupActivityV2
    columns: list[Any] = [activity.id, activity.action, activity.pkg_name, activity.version]
    columns += [UserOAuth.email, activity.status]
    columns += [activity.timestamp_started, activity.timestamp_ended]
    found = await session.execute(
        select(*columns)
        .join(UserOAuth, col(UserOAuth.id) == col(activity.user_id))
        .where(
            or_(
                col(activity.status).in_(_GOING_ON),
                col(activity.timestamp_ended) >= _ago(minutes),
            )
        )
    )
    activities = [
        Recent(f"Activity {activity_id} of {email}, {action} {package} {version}", *rest)
        for activity_id, action, package, version, email, *rest in found
    ]
    return _ordered(activities, _OF_ACTIVITIES)


def report(jobs: Sequence[Recent], activities: Sequence[Recent], minutes: int) -> str:
    """A sentence on all of them, and a line on each."""
    if any(each.goes_on for each in (*jobs, *activities)):
        summary = "Jobs or activities of task groups go on."
    elif jobs or activities:
        summary = f"Nothing goes on; this has ended in the last {minutes} minutes."
    else:
        summary = f"Nothing goes on, and nothing has ended in the last {minutes} minutes."
    blocks = [[summary], [str(each) for each in jobs], [str(each) for each in activities]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _ordered(found: list[Recent], statuses: Sequence[str]) -> list[Recent]:
    newest_first = sorted(found, key=lambda each: each.begin, reverse=True)
    return sorted(newest_first, key=lambda each: statuses.index(each.status))


def _ago(minutes: int) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def _told(time: datetime | None) -> str:
    return "-" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
