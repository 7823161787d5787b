"""Schedules: jobs that begin by themselves. Fractal does not have this table."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from fractal_models.tables.columns import flag, timestamp


class Schedule(SQLModel, table=True):
    """The owner of a schedule, and what it needs. Everything else is in its Prefect deployment.

    A row is written before its deployment is made, and deleted after it. A row without a project or
    without a deployment is to be deleted. `after_*` name the job for which the schedule waits, if
    it does. `notice` says why it was paused; `is_told`, whether Prefect shows that.
    """

    __tablename__ = "schedule"

    id: int | None = Field(default=None, primary_key=True)
    project_id: int | None = Field(
        default=None, foreign_key="projectv2.id", ondelete="SET NULL", index=True
    )
    user_id: int = Field(foreign_key="user_oauth.id", index=True)
    workflow_id: int | None = Field(
        default=None, foreign_key="workflowv2.id", ondelete="SET NULL", index=True
    )
    dataset_id: int | None = Field(
        default=None, foreign_key="datasetv2.id", ondelete="SET NULL", index=True
    )
    after_workflow_id: int | None = Field(
        default=None, foreign_key="workflowv2.id", ondelete="SET NULL", index=True
    )
    after_dataset_id: int | None = Field(
        default=None, foreign_key="datasetv2.id", ondelete="SET NULL", index=True
    )
    deployment_name: str = Field(unique=True)
    deployment_id: UUID | None = Field(default=None, unique=True)
    automation_id: UUID | None = None
    notice: str | None = None
    is_told: bool = flag(default=True)
    timestamp_created: datetime = timestamp()
