"""Schemas of resources and profiles, one per resource type."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, PositiveInt, model_validator

from fractal_models.schemas.base import (
    AbsolutePath,
    Input,
    JsonObject,
    NonEmpty,
    OpenInput,
    Output,
)
from fractal_models.schemas.meta import WarmUnitsOfResource
from fractal_models.schemas.pixi import TasksPixiConfig
from fractal_models.schemas.slurm import JobRunnerConfigSLURM
from fractal_models.schemas.task import PythonVersion


class JobRunnerConfigLocal(Input):
    """How jobs run on this machine."""

    parallel_tasks_per_job: PositiveInt | None = Field(
        default=None, description="Units of one job that run at once; default: the cores"
    )
    warm_units: WarmUnitsOfResource = "auto"


class TasksPythonSettings(OpenInput):
    """The Python interpreters with which task environments are made."""

    default_version: NonEmpty
    versions: dict[PythonVersion, AbsolutePath]
    pip_cache_dir: AbsolutePath | None = None

    @model_validator(mode="after")
    def _default_is_known(self) -> "TasksPythonSettings":
        if self.default_version not in self.versions:
            raise ValueError(
                f"default_version {self.default_version!r} is not among versions "
                f"({', '.join(sorted(self.versions)) or 'none'})"
            )
        return self


class _ResourceInput(OpenInput):
    name: NonEmpty
    prevent_new_submissions: bool = False
    jobs_local_dir: AbsolutePath
    jobs_poll_interval: Annotated[int, Field(ge=0)] = 5
    tasks_local_dir: AbsolutePath
    tasks_python_config: TasksPythonSettings
    tasks_pixi_config: TasksPixiConfig


class ValidResourceLocal(_ResourceInput):
    """A resource that runs jobs on this machine."""

    type: Literal["local"]
    host: None = None
    jobs_runner_config: JobRunnerConfigLocal
    jobs_slurm_python_worker: None = None


class ValidResourceSlurmSudo(_ResourceInput):
    """A SLURM cluster whose commands run on this machine, as other users by sudo."""

    type: Literal["slurm_sudo"]
    host: None = None
    jobs_runner_config: JobRunnerConfigSLURM
    jobs_slurm_python_worker: AbsolutePath


class ValidResourceSlurmSSH(_ResourceInput):
    """A SLURM cluster that is reached by SSH."""

    type: Literal["slurm_ssh"]
    host: NonEmpty
    jobs_runner_config: JobRunnerConfigSLURM
    jobs_slurm_python_worker: AbsolutePath

    @model_validator(mode="after")
    def _pixi_has_a_node(self) -> "ValidResourceSlurmSSH":
        if self.tasks_pixi_config is not None and self.tasks_pixi_config.SLURM_CONFIG is None:
            raise ValueError("tasks_pixi_config needs a SLURM_CONFIG: the job that pixi runs in")
        return self


ValidResource = Annotated[
    ValidResourceLocal | ValidResourceSlurmSudo | ValidResourceSlurmSSH,
    Field(discriminator="type"),
]


class ResourceRead(Output):
    """A resource."""

    id: int
    type: str
    name: str
    timestamp_created: AwareDatetime
    host: str | None
    prevent_new_submissions: bool
    jobs_local_dir: str
    jobs_runner_config: JsonObject
    jobs_slurm_python_worker: str | None
    jobs_poll_interval: int
    tasks_local_dir: str
    tasks_python_config: JsonObject
    tasks_pixi_config: JsonObject


class _ProfileInput(OpenInput):
    name: NonEmpty


class ValidProfileLocal(_ProfileInput):
    """A profile for a local resource. Jobs run by sudo as `username`, or as the worker's user."""

    resource_type: Literal["local"]
    username: NonEmpty | None = None
    ssh_key_path: None = None
    jobs_remote_dir: None = None
    tasks_remote_dir: None = None
    pixi_cache_dir: None = None


class ValidProfileSlurmSudo(_ProfileInput):
    """A profile for a SLURM cluster by sudo: the OS user as whom jobs run."""

    resource_type: Literal["slurm_sudo"]
    username: NonEmpty
    ssh_key_path: None = None
    jobs_remote_dir: None = None
    tasks_remote_dir: None = None
    pixi_cache_dir: None = None


class ValidProfileSlurmSSH(_ProfileInput):
    """A profile for a SLURM cluster by SSH: the user who logs in, and folders for files there."""

    resource_type: Literal["slurm_ssh"]
    username: NonEmpty
    ssh_key_path: AbsolutePath
    jobs_remote_dir: AbsolutePath
    tasks_remote_dir: AbsolutePath
    pixi_cache_dir: AbsolutePath | None = None


ValidProfile = Annotated[
    ValidProfileLocal | ValidProfileSlurmSudo | ValidProfileSlurmSSH,
    Field(discriminator="resource_type"),
]


class ProfileRead(Output):
    """A profile."""

    id: int
    name: str
    resource_id: int
    resource_type: str
    username: str | None = None
    ssh_key_path: str | None = None
    jobs_remote_dir: str | None = None
    tasks_remote_dir: str | None = None
    pixi_cache_dir: str | None = None
