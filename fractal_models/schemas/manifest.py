"""The manifest with which a package describes its Fractal tasks."""

from typing import Literal, Self

from pydantic import model_validator

from fractal_models.images import TypeFilters
from fractal_models.schemas.base import HttpLink, JsonFields, NonEmpty, OpenInput

TaskType = Literal[
    "compound", "converter_compound", "non_parallel", "converter_non_parallel", "parallel"
]


_PHASES = ("non_parallel", "parallel")


class TaskManifest(OpenInput):
    """One task of a package; executables are paths relative to the package folder."""

    name: NonEmpty
    executable_non_parallel: NonEmpty | None = None
    executable_parallel: NonEmpty | None = None
    input_types: TypeFilters = {}
    output_types: TypeFilters = {}
    meta_non_parallel: JsonFields = {}
    meta_parallel: JsonFields = {}
    args_schema_non_parallel: JsonFields | None = None
    args_schema_parallel: JsonFields | None = None
    docs_info: str | None = None
    docs_link: HttpLink | None = None
    category: str | None = None
    modality: str | None = None
    tags: list[str] = []
    type: TaskType | None = None

    @model_validator(mode="after")
    def _has_executable(self) -> Self:
        if self.executable_non_parallel is None and self.executable_parallel is None:
            raise ValueError(f"task {self.name!r} has no executable")
        return self

    @model_validator(mode="after")
    def _says_nothing_of_a_phase_it_has_not(self) -> Self:
        for phase in _PHASES:
            if getattr(self, f"executable_{phase}") is None:
                for field in (f"meta_{phase}", f"args_schema_{phase}"):
                    if getattr(self, field) not in (None, {}):
                        raise ValueError(
                            f"task {self.name!r} has {field} but no executable_{phase}"
                        )
        return self


class Manifest(OpenInput):
    """The content of a package's `__FRACTAL_MANIFEST__.json`. Newer ones may have more fields."""

    manifest_version: Literal["2"]
    task_list: list[TaskManifest]
    has_args_schemas: bool = False
    args_schema_version: str | None = None
    authors: NonEmpty | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [task.name for task in self.task_list]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"task names occur more than once: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _schemas_are_there(self) -> Self:
        for task in self.task_list if self.has_args_schemas else ():
            for phase in _PHASES:
                has = getattr(task, f"executable_{phase}") is not None
                if has and getattr(task, f"args_schema_{phase}") is None:
                    raise ValueError(
                        f"has_args_schemas is true, and task {task.name!r} has no "
                        f"args_schema_{phase}"
                    )
        return self
