"""Jobs: runs of a workflow on a dataset."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import flag, json_object, timestamp


class JobV2(SQLModel, table=True):
    """One run of (a part of) a workflow on a dataset, with copies from its submission.

    The row says what is true about the job; its Prefect flow run only executes it.
    """

    __tablename__ = "jobv2"
    __table_args__ = (
        CheckConstraint("status IN ('submitted', 'done', 'failed')", name="correct_job_status"),
        Index(
            "ix_jobv2_one_submitted_job_per_dataset",
            "dataset_id",
            unique=True,
            postgresql_where=text("status = 'submitted'"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    project_id: int | None = Field(
        default=None, foreign_key="projectv2.id", ondelete="SET NULL", index=True
    )
    workflow_id: int | None = Field(
        default=None, foreign_key="workflowv2.id", ondelete="SET NULL", index=True
    )
    dataset_id: int | None = Field(
        default=None, foreign_key="datasetv2.id", ondelete="SET NULL", index=True
    )
    user_email: str
    slurm_account: str | None = None
    dataset_dump: dict[str, Any] = json_object()
    workflow_dump: dict[str, Any] = json_object()
    project_dump: dict[str, Any] = json_object()
    fractal_server_version: str
    worker_init: str | None = None
    working_dir: str | None = None
    working_dir_user: str | None = None
    first_task_index: int
    last_task_index: int
    start_timestamp: datetime = timestamp()
    end_timestamp: datetime | None = timestamp(optional=True)
    status: str = "submitted"
    log: str | None = None
    executor_error_log: str | None = None
    attribute_filters: dict[str, list[Any]] = json_object()
    type_filters: dict[str, bool] = json_object()
    # Fractal does not have these columns. Whether tasks run only on images with which they are not
    # done; the Prefect flow run; how often it was restarted since the last progress; why the job
    # was told to stop, if it was; the id of the last HistoryRun before the job was retried (0:
    # there was none); the user's folder for what tasks keep between jobs, such as models.
    only_not_done: bool = flag()
    flow_run_id: UUID | None = Field(default=None, unique=True)
    restarts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    stop_reason: str | None = None
    retried_after: int | None = None
    cache_dir: str | None = None
