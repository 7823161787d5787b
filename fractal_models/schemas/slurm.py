"""Requests to a SLURM cluster: those of a resource for all its jobs, of a task for its units."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from fractal_models.schemas.base import Input, NonEmpty, problems_of
from fractal_models.schemas.meta import Retry, WarmUnits, WarmUnitsOfResource
from fractal_models.schemas.slurm_lines import checked_line

DEFAULT_CPUS_PER_TASK = 1
DEFAULT_MEM = 4000  # MiB

_MEMORY = re.compile(r"([0-9]+) ?(?:([KMGT])B?)?", re.IGNORECASE)
_KIBIBYTES = {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}
# Minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS.
_TIME = re.compile(r"[0-9]+(:[0-5][0-9]){0,2}|[0-9]+-([01]?[0-9]|2[0-3])(:[0-5][0-9]){0,2}")
_INJECTING = re.compile(r"[\s\"'\\#\x00-\x1f\x7f]")


def mebibytes(value: int | str) -> int:
    """Memory in MiB, rounded up, from a number of MiB or a text like '500M', '4G' or '4GB'.

    The units are SLURM's: K, M, G and T (or KB, MB, GB and TB), each 1024 times the one before.

    Raises:
        ValueError: it is neither, or zero.
    """
    found = _MEMORY.fullmatch(str(value).strip()) if type(value) in (int, str) else None
    if found is None or int(found[1]) == 0:
        raise ValueError(
            f"{value!r} is no memory: write a positive number of MiB, or one with a unit, as '4G'"
        )
    return -(-int(found[1]) * _KIBIBYTES[(found[2] or "M").upper()] // 1024)


def slurm_seconds(limit: str) -> int:
    """A time limit of SLURM, as '90', '1:30:00' or '2-12', in seconds.

    Raises:
        ValueError: it is none.
    """
    days, dash, rest = _checked_time(limit).rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if dash:  # hours first
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _checked_memory(value: Any) -> Any:
    mebibytes(value)
    return value


def _checked_memory_or_auto(value: Any) -> Any:
    return value if value == "auto" else _checked_memory(value)


def _checked_time(text: str) -> str:
    if _TIME.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is no time limit: write minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or "
            "D-HH:MM:SS"
        )
    return text


def _checked_option(text: str) -> str:
    if _INJECTING.search(text):
        raise ValueError(
            f"{text!r} becomes the value of an sbatch option: remove blanks, quotes, backslashes "
            "and #"
        )
    return text


def _checked_shebang(text: str) -> str:
    if re.match(r"#! ?/", text) is None or len(text.splitlines()) > 1:
        raise ValueError(
            f"{text!r} does not name a shell: write '#!' and its path, as '#!/bin/bash'"
        )
    return text


def _checked_export(text: str) -> str:
    if len(text.splitlines()) > 1 or "\0" in text:
        raise ValueError(f"{text!r} has a line break: give a value of one line")
    return text


def _refused_account(value: Any) -> Any:
    if value is not None:
        raise ValueError("a task does not choose it: submit the job with this slurm_account")
    return value


Count = Annotated[int, Strict(), Field(gt=0)]
Flag = Annotated[bool, Strict()]
Memory = Annotated[Count | NonEmpty, BeforeValidator(_checked_memory)]
MemoryOrAuto = Annotated[Count | NonEmpty, BeforeValidator(_checked_memory_or_auto)]
# Kept only where it was chosen: other servers and clients do not know it.
MemoryOfResource = Annotated[
    Literal["asked", "auto"],
    Field(
        description="Memory of units: what their task asks for, or what earlier units needed",
        exclude_if=lambda value: value == "asked",
    ),
]
TimeLimit = Annotated[NonEmpty, AfterValidator(_checked_time)]
Option = Annotated[NonEmpty, AfterValidator(_checked_option)]
Shebang = Annotated[NonEmpty, AfterValidator(_checked_shebang)]
Line = Annotated[NonEmpty, AfterValidator(checked_line)]
ShellVariable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ExportedText = Annotated[NonEmpty, AfterValidator(_checked_export)]


class _UnitOptions(Input):
    """What one unit needs, and where it may run.

    `time`, `gres`, `gpus` and `nodes` are for a whole SLURM job: its units share them. An element
    of `extra_lines` is an `#SBATCH` line with options that have no field here, or a line of shell
    that runs before the units.
    """

    partition: Option | None = None
    cpus_per_task: Count | None = Field(
        default=None, description=f"Of one unit; default: {DEFAULT_CPUS_PER_TASK}"
    )
    mem: Memory | None = Field(
        default=None,
        description=f"Of one unit: MiB, or with a unit as '4G'; default: {DEFAULT_MEM} MiB",
    )
    constraint: Option | None = None
    gres: Option | None = None
    gpus: Option | None = None
    time: TimeLimit | None = None
    nodes: Count | None = None
    nodelist: Option | None = None
    exclude: Option | None = None
    extra_lines: list[Line] = []


class SlurmConfigSet(_UnitOptions):
    """Options of `sbatch`.

    With `use_mem_per_cpu`, memory is requested as `--mem-per-cpu`, which some clusters require.
    """

    account: Option | None = None
    shebang_line: Shebang = "#!/bin/sh"
    use_mem_per_cpu: Flag = False


class BatchingConfigSet(Input):
    """How units are combined into SLURM jobs: targets may be exceeded, maxima may not.

    CPUs and memory are those of one SLURM job; the number of jobs is that of one workflow task.
    """

    target_cpus_per_job: Count
    max_cpus_per_job: Count
    target_mem_per_job: Memory
    max_mem_per_job: Memory
    target_num_jobs: Count
    max_num_jobs: Count

    @model_validator(mode="after")
    def _targets_are_within_maxima(self) -> "BatchingConfigSet":
        for what, number in (("cpus_per_job", int), ("mem_per_job", mebibytes), ("num_jobs", int)):
            target, maximum = getattr(self, f"target_{what}"), getattr(self, f"max_{what}")
            if number(target) > number(maximum):
                raise ValueError(
                    f"target_{what} ({target}) is more than max_{what} ({maximum}): "
                    "lower the one or raise the other"
                )
        return self


class JobRunnerConfigSLURM(Input):
    """How jobs run on a SLURM cluster.

    `gpu_slurm_config` is for tasks that need a GPU; options that it does not set are those of
    `default_slurm_config`. `cluster` is SLURM's name of the cluster, where its commands reach
    several; it runs `max_running_jobs` jobs of an array at once. The values of `user_local_exports`
    are paths in the user's cache folder.
    """

    default_slurm_config: SlurmConfigSet
    gpu_slurm_config: SlurmConfigSet | None = None
    batching_config: BatchingConfigSet
    cluster: Option | None = None
    max_running_jobs: Count | None = None
    user_local_exports: dict[ShellVariable, ExportedText] = {}
    warm_units: WarmUnitsOfResource = "auto"
    mem: MemoryOfResource = "asked"


class SlurmMeta(_UnitOptions):
    """What `meta_parallel` or `meta_non_parallel` may say about units that run on a SLURM cluster.

    It overrides the configuration of the resource; its `extra_lines` are added to those of the
    resource. `tasks_per_job` units go into one SLURM job, and `parallel_tasks_per_job` of them run
    at once. With "auto", `mem` is what earlier units needed.
    """

    model_config = ConfigDict(frozen=True)

    mem: MemoryOrAuto | None = None

    account: Annotated[None, BeforeValidator(_refused_account)] = None
    use_mem_per_cpu: Flag | None = None
    needs_gpu: Flag = False
    tasks_per_job: Count | None = None
    parallel_tasks_per_job: Count | None = None
    retry: Retry = Retry()
    warm_units: WarmUnits = "auto"

    @model_validator(mode="after")
    def _both_or_neither(self) -> "SlurmMeta":
        if (self.tasks_per_job is None) != (self.parallel_tasks_per_job is None):
            raise ValueError(
                "one of tasks_per_job and parallel_tasks_per_job is missing: set both or neither"
            )
        return self


def slurm_meta_of(meta: dict[str, Any]) -> SlurmMeta:
    """Read a `meta_parallel` or `meta_non_parallel` for a SLURM cluster.

    It may be wrong for a cluster and still right for a local resource, which only reads its
    `retry`.

    Raises:
        ValueError: it is wrong; the message names each wrong field and says why.
    """
    try:
        return SlurmMeta.model_validate(meta)
    except ValidationError as error:
        raise ValueError(
            f'{problems_of(error)}. Write e.g. {{"cpus_per_task": 4, "mem": "8G"}}'
        ) from None
