"""The history of a dataset's images: runs of workflow tasks, and their units."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Float, Index, Integer, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import flag, json_object, optional_json, timestamp

STATUS_CHECK = "status IN ('submitted', 'done', 'failed')"


class HistoryRun(SQLModel, table=True):
    """One run of a workflow task on a dataset, within a job."""

    __tablename__ = "historyrun"
    __table_args__ = (
        CheckConstraint(STATUS_CHECK, name="correct_run_status"),
        Index("ix_historyrun_dataset_workflowtask", "dataset_id", "workflowtask_id"),
        Index("ix_historyrun_task_id_id", "task_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    dataset_id: int = Field(foreign_key="datasetv2.id", ondelete="CASCADE")
    workflowtask_id: int | None = Field(
        default=None, foreign_key="workflowtaskv2.id", ondelete="SET NULL"
    )
    job_id: int = Field(foreign_key="jobv2.id", index=True)
    task_id: int | None = Field(default=None, foreign_key="taskv2.id", ondelete="SET NULL")
    workflowtask_dump: dict[str, Any] = json_object()
    task_group_dump: dict[str, Any] | None = optional_json()
    timestamp_started: datetime = timestamp()
    status: str
    num_available_images: int


class HistoryUnit(SQLModel, table=True):
    """One execution of a task's command: its log, its images, the resources that it used.

    `max_rss_kb` is the peak resident memory in KiB; `cpu_seconds` user plus system time.
    """

    __tablename__ = "historyunit"
    __table_args__ = (
        CheckConstraint(STATUS_CHECK, name="correct_unit_status"),
        Index("ix_historyunit_history_run_id_id", "history_run_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    history_run_id: int = Field(foreign_key="historyrun.id", ondelete="CASCADE")
    logfile: str | None = None
    status: str
    has_warnings: bool = flag()
    zarr_urls: list[str] = Field(
        default_factory=list,
        sa_column=Column(ARRAY(String), server_default="{}", nullable=False),
    )
    # Beyond Fractal, all null until the unit has ended:
    started_at: datetime | None = timestamp(optional=True)
    ended_at: datetime | None = timestamp(optional=True)
    exit_code: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))
    max_rss_kb: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    cpu_seconds: float | None = Field(default=None, sa_column=Column(Float, nullable=True))
    host: str | None = None
    attempt: int = Field(default=1, sa_column_kwargs={"server_default": "1"})


class HistoryImageCache(SQLModel, table=True):
    """The latest unit that ran a workflow task on an image of a dataset."""

    __tablename__ = "historyimagecache"

    dataset_id: int = Field(primary_key=True, foreign_key="datasetv2.id", ondelete="CASCADE")
    workflowtask_id: int = Field(
        primary_key=True, foreign_key="workflowtaskv2.id", ondelete="CASCADE", index=True
    )
    zarr_url: str = Field(primary_key=True)
    latest_history_unit_id: int = Field(
        foreign_key="historyunit.id", ondelete="CASCADE", index=True
    )
