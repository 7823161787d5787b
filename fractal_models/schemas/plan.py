"""Schemas of plans: what a job would do, what that would take, and what is wrong with it."""

from typing import Literal

from pydantic import Field

from fractal_models.schemas.base import Output

Level = Literal["error", "warning"]


class Finding(Output):
    """What is wrong, and how to mend it, in one or two sentences.

    With an `error` the job would not begin, or fail; with a `warning` it may do what was not meant.
    """

    level: Level
    task: int | None = Field(default=None, description="The place of the task that is meant")
    told: str


class Amount(Output):
    """What something may take: with low, median and high needs of the units before."""

    low: float
    median: float
    high: float


class PhasePlan(Output):
    """The units of one phase of a task, and what each asks for; null: not known, or not asked.

    `batches` are SLURM jobs on a cluster. If `units_are_estimated`, their number is that of an
    earlier run. The measured amounts are those that earlier units of this task version needed:
    memory of one unit, the time of all.
    """

    component: Literal["init", "parallel", "non_parallel"]
    units: int | None
    units_are_estimated: bool = False
    batches: int | None
    units_at_once: int | None
    cpus: int | None = None
    memory_mb: int | None = None
    time: str | None = None
    partition: str | None = None
    measured_units: int = 0
    measured_memory_mb: Amount | None = None
    wall_seconds: Amount | None = None
    cpu_seconds: Amount | None = None


class TaskPlan(Output):
    """A task of the workflow: its images and units. `images` is null if their number is unknown."""

    order: int
    name: str
    type: str
    images: int | None
    images_told: str
    phases: list[PhasePlan]
    wall_seconds: Amount | None = None
    cpu_seconds: Amount | None = None


class JobPlan(Output):
    """What a job would do. The amounts of time are null if that of a task is not known."""

    resource: str
    tasks: list[TaskPlan]
    findings: list[Finding]
    wall_seconds: Amount | None = None
    cpu_seconds: Amount | None = None
