"""The pixi configuration of a resource."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, PositiveInt, model_validator

from fractal_models.schemas.base import AbsolutePath, JsonObject, NonEmpty, OpenInput
from fractal_models.schemas.slurm import Count, Memory, Option, TimeLimit, mebibytes


class PixiSlurmConfig(OpenInput):
    """The SLURM job in which pixi installs packages, on a cluster that is reached by SSH.

    The lines of `preamble` run before pixi.
    """

    partition: Option
    cpus: Count
    mem: Memory | None = None
    mem_per_cpu: Memory | None = None
    time: TimeLimit
    preamble: list[NonEmpty] = []

    @model_validator(mode="after")
    def _one_memory(self) -> "PixiSlurmConfig":
        if (self.mem is None) == (self.mem_per_cpu is None):
            raise ValueError("give either mem or mem_per_cpu")
        return self

    def options(self) -> list[str]:
        """The configuration as options of SLURM's commands."""
        if self.mem is not None:
            memory = f"--mem={mebibytes(self.mem)}M"
        else:
            memory = f"--mem-per-cpu={mebibytes(self.mem_per_cpu or 0)}M"
        return [
            "--job-name=pixi",
            f"--partition={self.partition}",
            f"--cpus-per-task={self.cpus}",
            memory,
            f"--time={self.time}",
        ]


class TasksPixiSettings(OpenInput):
    """The versions of pixi, each with its folder, and options for installing.

    `DEFAULT_PLATFORM` exists only for Fractal's clients: pixi uses the platform on which it runs.
    """

    versions: dict[NonEmpty, AbsolutePath]
    default_version: NonEmpty
    PIXI_CONCURRENT_SOLVES: PositiveInt = 4
    PIXI_CONCURRENT_DOWNLOADS: PositiveInt = 4
    TOKIO_WORKER_THREADS: PositiveInt = 2
    DEFAULT_ENVIRONMENT: NonEmpty = "default"
    DEFAULT_PLATFORM: NonEmpty = "linux-64"
    SLURM_CONFIG: PixiSlurmConfig | None = None

    @model_validator(mode="after")
    def _versions_are_side_by_side(self) -> "TasksPixiSettings":
        if self.default_version not in self.versions:
            raise ValueError(
                f"default_version {self.default_version!r} is not among versions "
                f"({', '.join(sorted(self.versions)) or 'none'})"
            )
        parent = PurePosixPath(self.versions[self.default_version]).parent
        for version, folder in self.versions.items():
            if PurePosixPath(folder) != parent / version:
                raise ValueError(
                    f"pixi {version} is in {folder}: each version must be in a folder of its "
                    f"name, all in one folder, as {parent / version}"
                )
        return self


def _none_if_empty(value: Any) -> Any:
    return None if value == {} else value


def _empty_if_none(settings: TasksPixiSettings | None) -> JsonObject:
    return {} if settings is None else settings.model_dump(mode="json")


# An empty object means that there is no pixi.
TasksPixiConfig = Annotated[
    TasksPixiSettings | None,
    BeforeValidator(_none_if_empty),
    PlainSerializer(_empty_if_none),
]
