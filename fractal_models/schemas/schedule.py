"""Schemas of schedules."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from fractal_models.images import AttributeFilters, TypeFilters, is_beyond_64_bits
from fractal_models.schemas.base import (
    Input,
    JsonObject,
    Name,
    NonEmpty,
    Output,
    SlurmAccount,
    Timestamp,
)
from fractal_models.schemas.job import Images, JobCreate, TaskIndex


class When(Input):
    """Times at which a schedule is due: by cron, at an interval, or by RRule (RFC 5545).

    If a cron expression limits both day and weekday, `day_or` says whether one of them is enough or
    both are needed.
    """

    cron: NonEmpty | None = None
    day_or: bool = True
    interval_seconds: Annotated[float, Field(ge=1)] | None = None
    anchor: AwareDatetime | None = None
    rrule: NonEmpty | None = None
    timezone: NonEmpty = "UTC"
    active: bool = True

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> "When":
        kinds = (self.cron, self.interval_seconds, self.rrule)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("give one of cron, interval_seconds and rrule")
        if self.anchor is not None and self.interval_seconds is None:
            raise ValueError("anchor is for interval_seconds only")
        return self


def _as_list(given: Any) -> Any:
    return given if given is None or isinstance(given, list) else [given]


Times = Annotated[list[When], BeforeValidator(_as_list), Field(min_length=1)]


class After(Input):
    """The workflow and dataset, both in the project, of the job that must be done first."""

    workflow_id: int
    dataset_id: int


def _listable(filters: AttributeFilters) -> AttributeFilters:
    if any(is_beyond_64_bits(value) for values in filters.values() for value in values):
        raise ValueError("Prefect, which keeps schedules, has no integers of more than 64 bits")
    return filters


ListableFilters = Annotated[AttributeFilters, AfterValidator(_listable)]


class ScheduledJob(JobCreate):
    """The job that a schedule runs."""

    workflow_id: int
    dataset_id: int
    images: Images = "all"
    attribute_filters: ListableFilters = {}


class ScheduleCreate(ScheduledJob):
    """The job to run, and the times for it, or the other job after which it runs."""

    name: Name | None = None
    when: Times | None = None
    after: After | None = None
    active: bool = True

    @model_validator(mode="after")
    def _is_when_or_after(self) -> "ScheduleCreate":
        if (self.when is None) == (self.after is None):
            raise ValueError("give either when or after")
        return self


class ScheduleUpdate(Input):
    """The fields of a schedule that can be changed: all except its name.

    `when` replaces `after`, and the reverse.
    """

    when: Times | None = None
    after: After | None = None
    workflow_id: int = 0
    dataset_id: int = 0
    first_task_index: TaskIndex | None = None
    last_task_index: TaskIndex | None = None
    slurm_account: SlurmAccount | None = None
    worker_init: NonEmpty | None = None
    attribute_filters: ListableFilters = {}
    type_filters: TypeFilters = {}
    images: Images = "all"
    active: bool = True

    @model_validator(mode="after")
    def _is_not_when_and_after(self) -> "ScheduleUpdate":
        if self.when is not None and self.after is not None:
            raise ValueError("give either when or after")
        return self


class WhenRead(Output):
    """Times at which a schedule is due, as they are in Prefect."""

    cron: str | None = None
    day_or: bool = True
    interval_seconds: float | None = None
    anchor: Timestamp | None = None
    rrule: str | None = None
    timezone: str
    active: bool


class AfterRead(Output):
    """The workflow and dataset of the job for which a schedule waits (null: deleted)."""

    workflow_id: int | None
    dataset_id: int | None


class ScheduleRead(Output):
    """A schedule, as it is in Prefect now.

    `workflow_id` and `dataset_id` are null if they were deleted, or if somebody has changed the
    deployment's parameters so that they name none.
    """

    id: int
    project_id: int
    user_email: str
    name: str
    active: bool
    notice: str | None
    when: list[WhenRead]
    after: AfterRead | None
    workflow_id: int | None
    dataset_id: int | None
    first_task_index: int | None
    last_task_index: int | None
    slurm_account: str | None
    worker_init: str | None
    attribute_filters: JsonObject
    type_filters: JsonObject
    images: str
    deployment_id: UUID
    timestamp_created: Timestamp


class Occurrence(Output):
    """What happened at one of the times of a schedule.

    `run`: its job has ended; `running`: it has begun; `waiting`: it will begin soon, or waits for a
    worker; `skipped` and `failed`: there was no job, and `reason` says why.
    """

    flow_run_id: UUID
    expected: Timestamp
    outcome: Literal["run", "running", "waiting", "skipped", "failed"]
    reason: str | None = None
    job_id: int | None = None
    job_status: str | None = None


class ScheduleReadWithOccurrences(ScheduleRead):
    """A schedule, its next times, and what happened at its latest times."""

    next: list[Timestamp]
    occurrences: list[Occurrence]
