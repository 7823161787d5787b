"""Translates the times of a schedule between the REST API and Prefect."""

from collections.abc import Sequence
from datetime import timedelta

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import (
    SCHEDULE_TYPES,
    CronSchedule,
    IntervalSchedule,
    RRuleSchedule,
)
from pydantic import ValidationError

from fractal_models.errors import JobRefusedError
from fractal_models.schemas.base import problems_of
from fractal_models.schemas.schedule import When, WhenRead
from fractal_models.tables.columns import now


def to_prefect(when: Sequence[When]) -> list[DeploymentScheduleCreate]:
    """Times in Prefect's form.

    Raises:
        JobRefusedError: a cron expression, an RRule or a time zone is not valid.
    """
    schedules = []
    for number, times in enumerate(when):
        try:
            schedules.append(DeploymentScheduleCreate(schedule=_of(times), active=times.active))
        except ValidationError as error:
            raise JobRefusedError(problems_of(error, "when", str(number))) from error
    return schedules


def from_prefect(found: DeploymentSchedule) -> WhenRead:
    """Times in the form of the REST API."""
    schedule = found.schedule
    zone = getattr(schedule, "timezone", None) or "UTC"
    if isinstance(schedule, CronSchedule):
        own = {"cron": schedule.cron, "day_or": schedule.day_or}
    elif isinstance(schedule, RRuleSchedule):
        own = {"rrule": schedule.rrule}
    elif isinstance(schedule, IntervalSchedule):
        seconds = schedule.interval.total_seconds()
        own = {"interval_seconds": seconds, "anchor": schedule.anchor_date}
    else:
        own = {}
    return WhenRead.model_validate({"timezone": zone, "active": found.active, **own})


def _of(times: When) -> SCHEDULE_TYPES:
    if times.cron is not None:
        return CronSchedule(cron=times.cron, timezone=times.timezone, day_or=times.day_or)
    if times.rrule is not None:
        return RRuleSchedule(rrule=times.rrule, timezone=times.timezone)
    interval = timedelta(seconds=times.interval_seconds or 0)
    anchor = times.anchor or now()
    return IntervalSchedule(interval=interval, anchor_date=anchor, timezone=times.timezone)
