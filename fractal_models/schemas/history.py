"""Schemas of the history of a dataset."""

from typing import Any, Literal

from fractal_models.schemas.base import JsonObject, OpenInput, Output, Timestamp

UnitStatus = Literal["submitted", "done", "failed"]


class HistoryRunReadAggregated(Output):
    """One HistoryRun of a workflow task, with the number of its units per status."""

    id: int
    timestamp_started: Timestamp
    workflowtask_dump: dict[str, Any]
    num_submitted_units: int
    num_done_units: int
    num_failed_units: int
    num_units_with_warnings: int
    args_schema_parallel: JsonObject | None = None
    args_schema_non_parallel: JsonObject | None = None
    version: str | None = None


class HistoryUnitRead(Output):
    """One execution of a task's command.

    Beyond the contract: `max_rss_kb` is the peak resident memory in KiB, `cpu_seconds` user plus
    system time.
    """

    id: int
    logfile: str | None = None
    status: UnitStatus
    has_warnings: bool
    zarr_urls: list[str]
    started_at: Timestamp | None = None
    ended_at: Timestamp | None = None
    exit_code: int | None = None
    max_rss_kb: int | None = None
    cpu_seconds: float | None = None
    host: str | None = None
    attempt: int = 1


class TaskStatusSimple(Output):
    """The status of a workflow task on a dataset on which it never began."""

    status: UnitStatus


class TaskStatusImages(TaskStatusSimple):
    """The status of a workflow task on a dataset: how many images have which status.

    The status of an image is that of the task's latest unit on it.

    `num_available_images` is the number of images that passed the type filters when the task last
    began; null if it ran on more.
    """

    num_available_images: int | None = 0
    num_submitted_images: int = 0
    num_done_images: int = 0
    num_failed_images: int = 0
    has_warnings: bool = False


class ImageLogsRequest(OpenInput):
    """Whose log is requested: that of the latest unit of a workflow task on an image."""

    workflowtask_id: int
    dataset_id: int
    zarr_url: str
