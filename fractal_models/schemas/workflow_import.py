"""Schemas of workflows that leave or enter an installation: their tasks are known by name."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from fractal_models.schemas.base import Input, JsonObject, NonEmpty, Output
from fractal_models.schemas.workflow import WorkflowTaskUpdate

_NO_FILTERS = ("type_filters", None)


class TaskImport(Input):
    """The name of a task. Without a version it is never found, but all versions are told."""

    pkg_name: NonEmpty
    version: NonEmpty | None = None
    name: NonEmpty


class WorkflowTaskImport(WorkflowTaskUpdate):
    """A task of a workflow that comes from elsewhere."""

    input_filters: JsonObject | None = None
    task: TaskImport

    @model_validator(mode="before")
    @classmethod
    def _of_older_installations(cls, values: Any) -> Any:
        """What was written as `input_filters` are type filters now; null is the same as none."""
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
    """A workflow that comes from elsewhere."""

    name: NonEmpty
    description: NonEmpty | None = None
    task_list: list[WorkflowTaskImport]


class WorkflowImportFromTemplate(Input):
    """What is to differ from the template; versions by the position of their task, from 0."""

    name: NonEmpty | None = None
    override_versions: dict[Annotated[int, Field(ge=0)], NonEmpty] = {}


class TaskExport(Output):
    """The name by which a task is found elsewhere."""

    pkg_name: str
    version: str
    name: str


class WorkflowTaskExport(Output):
    """A task of a workflow, to be imported elsewhere."""

    alias: str | None = None
    description: str | None = None
    args_non_parallel: JsonObject | None = None
    args_parallel: JsonObject | None = None
    meta_non_parallel: JsonObject | None = None
    meta_parallel: JsonObject | None = None
    type_filters: dict[str, bool] = {}
    task: TaskExport


class WorkflowExport(Output):
    """A workflow, to be imported elsewhere."""

    name: str
    description: str | None = None
    task_list: list[WorkflowTaskExport]
