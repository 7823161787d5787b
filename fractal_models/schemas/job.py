"""Schemas of jobs."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, model_validator

from fractal_models.images import AttributeFilters, TypeFilters
from fractal_models.schemas.base import Input, NonEmpty, Output, SlurmAccount, Timestamp
from fractal_models.schemas.dataset import DatasetDump
from fractal_models.schemas.history import TaskStatusImages, TaskStatusSimple
from fractal_models.schemas.project import ProjectDump
from fractal_models.schemas.workflow import WorkflowDump

TaskIndex = Annotated[int, Field(ge=0)]
Images = Literal["all", "not done"]


class JobCreate(Input):
    """Which part of the workflow to run, on which images. Indexes are inclusive and begin at 0."""

    first_task_index: TaskIndex | None = None
    last_task_index: TaskIndex | None = None
    slurm_account: SlurmAccount | None = None
    worker_init: NonEmpty | None = None
    attribute_filters: AttributeFilters = {}
    type_filters: TypeFilters = {}
    # Beyond the contract.
    mem: Annotated[
        Literal["auto"] | None,
        Field(description="On SLURM: the memory that earlier units needed, where none is chosen"),
    ] = None

    @model_validator(mode="after")
    def _first_is_not_after_last(self) -> "JobCreate":
        first, last = self.first_task_index, self.last_task_index
        if first is not None and last is not None and first > last:
            raise ValueError(f"first_task_index {first} is after last_task_index {last}")
        return self


class JobRead(Output):
    """A job."""

    id: int
    project_id: int | None = None
    project_dump: ProjectDump
    workflow_id: int | None = None
    workflow_dump: WorkflowDump
    dataset_id: int | None = None
    dataset_dump: DatasetDump
    user_email: str
    slurm_account: str | None = None
    worker_init: str | None = None
    working_dir: str | None = None
    working_dir_user: str | None = None
    first_task_index: int | None = None
    last_task_index: int | None = None
    start_timestamp: Timestamp
    end_timestamp: Timestamp | None = None
    status: Literal["submitted", "done", "failed"]
    log: str | None = None
    executor_error_log: str | None = None
    attribute_filters: AttributeFilters
    type_filters: dict[str, bool]
    # Beyond the contract: the Prefect flow run.
    flow_run_id: UUID | None = None


class JobUpdate(Input):
    """The change that an administrator can make to a job that does not end."""

    status: Literal["failed"]


class JobWithTaskStatuses(JobRead):
    """A job, and the status of each workflow task on the dataset, by id (null: it never ran)."""

    task_statuses: dict[str, TaskStatusImages | TaskStatusSimple | None]
