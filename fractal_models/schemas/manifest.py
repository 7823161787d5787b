"""The manifest with which a package describes its Fractal tasks."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fractal_models.images import TypeFilters
from fractal_models.schemas.base import JsonObject, NonEmpty

TaskType = Literal[
    "compound", "converter_compound", "non_parallel", "converter_non_parallel", "parallel"
]


class TaskManifest(BaseModel):
    """One task of a package; executables are paths relative to the package folder."""

    # Newer manifests may say more than is known here.
    model_config = ConfigDict(extra="ignore")

    name: NonEmpty
    executable_non_parallel: NonEmpty | None = None
    executable_parallel: NonEmpty | None = None
    input_types: TypeFilters = {}
    output_types: TypeFilters = {}
    meta_non_parallel: JsonObject = {}
    meta_parallel: JsonObject = {}
    args_schema_non_parallel: JsonObject | None = None
    args_schema_parallel: JsonObject | None = None
    docs_info: str | None = None
    docs_link: NonEmpty | None = None
    category: str | None = None
    modality: str | None = None
    tags: list[str] = []
    type: TaskType | None = None

    @model_validator(mode="after")
    def _has_executable(self) -> Self:
        if self.executable_non_parallel is None and self.executable_parallel is None:
            raise ValueError(f"task {self.name!r} has no executable")
        return self


class Manifest(BaseModel):
    """The content of a package's `__FRACTAL_MANIFEST__.json`."""

    model_config = ConfigDict(extra="ignore")

    manifest_version: Literal["2"]
    task_list: list[TaskManifest] = Field(min_length=1)
    has_args_schemas: bool = False
    args_schema_version: str | None = None
    authors: NonEmpty | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [task.name for task in self.task_list]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"task names occur more than once: {', '.join(sorted(twice))}")
        return self
