"""Schemas of workflows and workflow tasks."""

from typing import Annotated

from pydantic import AfterValidator

from fractal_models.images import TypeFilters
from fractal_models.schemas.base import (
    Input,
    JsonFields,
    JsonObject,
    NonEmpty,
    OpenInput,
    Output,
    Timestamp,
    UniqueIds,
)
from fractal_models.schemas.manifest import TaskType
from fractal_models.schemas.meta import Meta
from fractal_models.schemas.project import ProjectRead
from fractal_models.schemas.task import TaskRead

# Arguments that a job sets for each unit, and that nobody else may set.
RESERVED_ARGUMENTS = frozenset({"zarr_dir", "zarr_url", "zarr_urls", "init_args"})


def _without_reserved(arguments: JsonObject) -> JsonObject:
    if taken := sorted(RESERVED_ARGUMENTS & arguments.keys()):
        raise ValueError(f"{', '.join(taken)} cannot be set: jobs give them to each unit")
    return arguments


Arguments = Annotated[JsonFields, AfterValidator(_without_reserved)]


class WorkflowCreate(Input):
    """A new, empty workflow."""

    name: NonEmpty
    description: NonEmpty | None = None


class WorkflowUpdate(Input):
    """The fields of a workflow that can be changed."""

    name: NonEmpty = ""
    description: NonEmpty | None = None
    reordered_workflowtask_ids: UniqueIds | None = None


class WorkflowTaskReplace(OpenInput):
    """Arguments of a workflow task, per phase."""

    args_non_parallel: Arguments | None = None
    args_parallel: Arguments | None = None


class WorkflowTaskUpdate(WorkflowTaskReplace, Input):
    """The fields of a workflow task that can be changed."""

    alias: NonEmpty | None = None
    description: NonEmpty | None = None
    meta_non_parallel: Meta | None = None
    meta_parallel: Meta | None = None
    type_filters: TypeFilters = {}


class WorkflowTaskCreate(WorkflowTaskUpdate):
    """A task to be added to a workflow."""

    task_id: int


class WorkflowTaskRead(Output):
    """A task at its place in a workflow."""

    id: int
    workflow_id: int
    order: int | None = None
    alias: str | None = None
    description: str | None = None
    args_non_parallel: JsonObject | None = None
    args_parallel: JsonObject | None = None
    meta_non_parallel: JsonObject | None = None
    meta_parallel: JsonObject | None = None
    type_filters: dict[str, bool]
    task_type: TaskType
    task_id: int
    task: TaskRead


class TaskVersionRead(Output):
    """A newer version of a task, which can replace the older one."""

    task_id: int
    version: str


class TypeFiltersRead(Output):
    """The type filters that apply to a workflow task, as far as known without a dataset."""

    workflowtask_id: int
    current_type_filters: dict[str, bool]
    input_type_filters: dict[str, bool]
    output_type_filters: dict[str, bool]


class WorkflowTaskReadWithWarning(WorkflowTaskRead):
    """A workflow task, with the reason why it may not run."""

    warning: str | None = None


class _WorkflowFields(Output):
    id: int
    name: str
    description: str | None = None
    project_id: int
    project: ProjectRead
    template_id: int | None = None
    timestamp_created: Timestamp
    is_starred: bool


class WorkflowRead(_WorkflowFields):
    """A workflow with its tasks."""

    task_list: list[WorkflowTaskRead]


class WorkflowReadWithWarnings(_WorkflowFields):
    """A workflow with its tasks and their warnings."""

    task_list: list[WorkflowTaskReadWithWarning]


class WorkflowDump(Output):
    """A workflow at the time when a job was submitted."""

    id: int
    name: str
    project_id: int
    timestamp_created: str
