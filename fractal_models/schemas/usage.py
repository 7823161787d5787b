"""Schemas of what was reserved and used."""

from typing import Literal

from fractal_models.schemas.base import Output

UsageBy = Literal["user", "group", "project", "resource", "month"]


class Usage(Output):
    """What was reserved for units and what they used, by those fields that were asked for.

    Hours of memory are GiB times hours. Nothing is reserved for units on the server's own machine.
    """

    user: str | None = None
    group: str | None = None
    project: str | None = None
    resource: str | None = None
    month: str | None = None
    num_jobs: int
    num_units: int
    runner_hours: float
    cpu_hours_reserved: float
    cpu_hours_used: float
    gb_hours_reserved: float
    gb_hours_used: float
    gpu_hours_reserved: float
