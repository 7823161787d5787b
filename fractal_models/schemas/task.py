"""Schemas of tasks, task groups and activities of task groups."""

from typing import Annotated, Literal

from pydantic import BaseModel, Json, StringConstraints, model_validator

from fractal_models.images import TypeFilters
from fractal_models.schemas.base import (
    AbsolutePath,
    Command,
    HttpLink,
    Input,
    JsonFields,
    JsonObject,
    NonEmpty,
    Output,
    Timestamp,
    UniqueStrings,
)
from fractal_models.schemas.manifest import Manifest, TaskType

PythonVersion = Literal["3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]
Origin = Literal["pypi", "wheel-file", "pixi", "other"]
ActivityStatus = Literal["pending", "ongoing", "failed", "OK"]
ActivityAction = Literal["collect", "deactivate", "reactivate", "delete", "reset"]
PackageName = Annotated[
    str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]

PackageVersion = Annotated[
    str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]*$")
]
PackageExtras = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9._-]+( *, *[A-Za-z0-9._-]+)*$"),
]
_PackageWithExtras = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])?$"
    ),
]
# Given as JSON text.
PinnedVersions = Json[dict[_PackageWithExtras, PackageVersion] | None]


class TaskCreate(Input):
    """A single custom task: its commands are given, and no package is installed."""

    name: NonEmpty
    version: NonEmpty
    command_non_parallel: Command | None = None
    command_parallel: Command | None = None
    meta_non_parallel: JsonFields | None = None
    meta_parallel: JsonFields | None = None
    args_schema_non_parallel: JsonFields | None = None
    args_schema_parallel: JsonFields | None = None
    args_schema_version: NonEmpty | None = None
    docs_info: str | None = None
    docs_link: HttpLink | None = None
    input_types: TypeFilters = {}
    output_types: TypeFilters = {}
    category: NonEmpty | None = None
    modality: NonEmpty | None = None
    authors: NonEmpty | None = None
    tags: UniqueStrings = []
    type: TaskType | None = None

    @model_validator(mode="after")
    def _type_fits_commands(self) -> "TaskCreate":
        self.type = task_type_of(self.type, self.command_non_parallel, self.command_parallel)
        for part in ("non_parallel", "parallel"):
            if getattr(self, f"command_{part}") is None:
                for field in (f"args_schema_{part}", f"meta_{part}"):
                    if getattr(self, field) is not None:
                        raise ValueError(f"a {self.type} task has no {field}")
        return self


def task_type_of(
    declared: TaskType | None, non_parallel: str | None, parallel: str | None
) -> TaskType:
    """The type of a task with these commands (or executables).

    Raises:
        ValueError: there is no command, or the declared type needs other commands.
    """
    kinds: dict[tuple[bool, bool], tuple[TaskType, ...]] = {
        (True, True): ("compound", "converter_compound"),
        (True, False): ("non_parallel", "converter_non_parallel"),
        (False, True): ("parallel",),
    }
    possible = kinds.get((non_parallel is not None, parallel is not None))
    if possible is None:
        raise ValueError("a task needs command_parallel, command_non_parallel or both")
    if declared is not None and declared not in possible:
        raise ValueError(
            f"type {declared!r} does not fit the given commands, which make {' or '.join(possible)}"
        )
    return declared or possible[0]


class TaskUpdate(Input):
    """The fields of a task that can be changed."""

    command_non_parallel: Command | None = None
    command_parallel: Command | None = None
    input_types: TypeFilters = {}
    output_types: TypeFilters = {}
    category: NonEmpty | None = None
    modality: NonEmpty | None = None
    authors: NonEmpty | None = None
    tags: UniqueStrings | None = None


class TaskReadSlim(Output):
    """A task in a list."""

    id: int
    name: str
    version: str
    docs_info: str | None = None
    docs_link: str | None = None
    input_types: dict[str, bool]
    category: str | None = None
    modality: str | None = None
    authors: str | None = None
    tags: list[str]
    is_core: bool


class TaskRead(TaskReadSlim):
    """A task, with everything needed to run it."""

    type: TaskType
    command_non_parallel: str | None = None
    command_parallel: str | None = None
    meta_non_parallel: JsonObject
    meta_parallel: JsonObject
    args_schema_non_parallel: JsonObject | None = None
    args_schema_parallel: JsonObject | None = None
    args_schema_version: str | None = None
    output_types: dict[str, bool]
    taskgroupv2_id: int | None = None


class PackageToCollect(BaseModel):
    """A package on the package index, and options for installing it.

    Pinned versions, as JSON objects of name and version, are installed before or after the package.
    """

    package: PackageName | None = None
    package_version: PackageVersion | None = None
    package_extras: PackageExtras | None = None
    python_version: PythonVersion | None = None
    pinned_package_versions_pre: PinnedVersions = None
    pinned_package_versions_post: PinnedVersions = None


class TaskCollectCustom(Input):
    """Tasks of a package that is already installed somewhere, described by its manifest."""

    manifest: Manifest
    python_interpreter: AbsolutePath
    label: NonEmpty
    package_root: AbsolutePath | None = None
    package_name: Command | None = None
    version: NonEmpty

    @model_validator(mode="after")
    def _root_or_name(self) -> "TaskCollectCustom":
        if (self.package_root is None) == (self.package_name is None):
            raise ValueError("give either package_root or package_name")
        return self


class TaskGroupUpdate(Input):
    """The user group with which a task group is shared; null makes it private."""

    user_group_id: int | None = None


class TaskGroupOverridesPip(Input):
    """Changes for installing a package again: what is not given stays, except pinned versions."""

    pip_extras: PackageExtras | None = None
    python_version: PythonVersion | None = None
    pinned_package_versions_pre: PinnedVersions = {}
    pinned_package_versions_post: PinnedVersions = {}

    def changes(self) -> JsonObject:
        """The fields of the task group that change, with their new values."""
        return self.model_dump(exclude_none=True)


class TaskGroupOverridesPixi(Input):
    """Changes for installing a pixi project again."""

    use_pixi_lockfile: bool = False


class _TaskGroupFields(Output):
    id: int
    user_email: str
    user_group_id: int | None = None
    origin: Origin
    pkg_name: str
    version: str
    python_version: str | None = None
    pixi_version: str | None = None
    path: str | None = None
    venv_path: str | None = None
    archive_path: str | None = None
    pip_extras: str | None = None
    pinned_package_versions_pre: dict[str, str] = {}
    pinned_package_versions_post: dict[str, str] = {}
    active: bool
    in_use: bool
    timestamp_created: Timestamp
    timestamp_last_used: Timestamp


class TaskGroupReadSlim(_TaskGroupFields):
    """A task group in a list."""

    task_list: list[TaskReadSlim]


class TaskGroupRead(_TaskGroupFields):
    """A task group with its tasks."""

    task_list: list[TaskRead]


class TaskGroupReadSuperuser(TaskGroupRead):
    """A task group with its tasks, as administrators see it."""

    user_id: int
    resource_id: int


class TaskGroupActivityRead(Output):
    """An activity of a task group, and how it ended."""

    id: int
    user_id: int
    taskgroupv2_id: int | None = None
    timestamp_started: Timestamp
    timestamp_ended: Timestamp | None = None
    pkg_name: str
    version: str
    status: ActivityStatus
    action: ActivityAction
    log: str | None = None


class TaskMinimal(Output):
    """A task in administrators' searches, with the most important facts about its task group."""

    id: int
    name: str
    type: str
    is_core: bool
    taskgroupv2_id: int
    command_non_parallel: str | None = None
    command_parallel: str | None = None
    version: str
    pkg_name: str
    active: bool
    owner: str
    user_group: str | None = None


class ProjectUser(Output):
    """An owner of a project."""

    id: int
    email: str


class TaskRelationship(Output):
    """A workflow that uses a task."""

    workflow_id: int
    workflow_name: str
    project_id: int
    project_name: str
    project_users: list[ProjectUser] = []


class TaskInfo(Output):
    """A task, and the workflows that use it."""

    task: TaskMinimal
    relationships: list[TaskRelationship]
