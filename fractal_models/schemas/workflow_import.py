"""Schemas for the export and import of workflows, in which tasks are identified by name."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from fractal_models.schemas.base import Input, JsonObject, NonEmpty, Output
from fractal_models.schemas.workflow import WorkflowTaskUpdate

_NO_FILTERS = ("type_filters", None)


class TaskImport(Input):
    """The name of a task. Without a version no task is found, but the answer lists all versions."""

    pkg_name: NonEmpty
    version: NonEmpty | None = None
    name: NonEmpty


class WorkflowTaskImport(WorkflowTaskUpdate):
    """A task of a workflow from another installation."""

    input_filters: JsonObject | None = None
    task: TaskImport

    @model_validator(mode="before")
    @classmethod
    def _of_older_installations(cls, values: Any) -> Any:
        """Convert `input_filters` of older installations to type filters; null means none."""
        if not isinstance(values, dict):
            return values
        old = values.get("input_filters")
        if not isinstance(old, dict):
            return {key: given for key, given in values.items() if (key, given) != _NO_FILTERS}
        if "type_filters" in values:
            raise ValueError("give type_filters, or the older input_filters, not both")
        if old.get("attributes"):
            raise ValueError("a workflow task has no attribute filters: give them with the job")
        return {**values, "type_filters": old.get("types", {}), "input_filters": None}


class WorkflowImport(Input):
    """A workflow from another installation."""

    name: NonEmpty
    description: NonEmpty | None = None
    task_list: list[WorkflowTaskImport]


class WorkflowImportFromTemplate(Input):
    """Differences from the template; versions are given by the task's position, from 0."""

    name: NonEmpty | None = None
    override_versions: dict[Annotated[int, Field(ge=0)], NonEmpty] = {}


class TaskExport(Output):
    """The name by which another installation finds a task."""

    pkg_name: str
    version: str
    name: str


class WorkflowTaskExport(Output):
    """A task of a workflow, for import in another installation."""

    alias: str | None = None
    description: str | None = None
    args_non_parallel: JsonObject | None = None
    args_parallel: JsonObject | None = None
    meta_non_parallel: JsonObject | None = None
    meta_parallel: JsonObject | None = None
    type_filters: dict[str, bool] = {}
    task: TaskExport


class WorkflowExport(Output):
    """A workflow, for import in another installation."""

    name: str
    description: str | None = None
    task_list: list[WorkflowTaskExport]
