"""The text of a batch script, and what the script asks SLURM for."""

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

from fractal_models.errors import FractalError
from fractal_models.schemas.slurm import (
    DEFAULT_CPUS_PER_TASK,
    DEFAULT_MEM,
    JobRunnerConfigSLURM,
    SlurmConfigSet,
    SlurmMeta,
    mebibytes,
)
from fractal_models.schemas.slurm_lines import is_directive

# %A is the id of the array, %a the index in it. So a batch that is submitted again gets a new file,
# and its old file still says what happened.
_OUTPUT = "slurm-%A_%a.out"
# Before the time limit SLURM tells the runner, which has taken the place of the batch's shell, so
# that units can end in order. SLURM may do so up to a minute earlier.
_TELL_OF_TIME = "B:USR1@15"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_./:,=+@%*&|()\[\]-]+")


class SlurmRequestError(FractalError):
    """A task asks for something that the resource does not have; the message names the field."""


@dataclass(frozen=True, slots=True)
class SlurmRequest:
    """What to ask of SLURM for units of a command; `cpus_per_task` and `mem` (MiB) are per unit."""

    cpus_per_task: int = DEFAULT_CPUS_PER_TASK
    mem: int = DEFAULT_MEM
    use_mem_per_cpu: bool = False
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    gres: str | None = None
    gpus: str | None = None
    nodes: int | None = None
    nodelist: str | None = None
    exclude: str | None = None
    shebang_line: str = "#!/bin/sh"
    extra_lines: tuple[str, ...] = ()
    exports: Mapping[str, str] = field(default_factory=dict)
    max_running_jobs: int | None = None


def resolve_request(
    config: JobRunnerConfigSLURM,
    meta: SlurmMeta,
    slurm_account: str | None,
    *,
    cache_dir: str | None = None,
    mem_factor: float = 1.0,
) -> SlurmRequest:
    """The resource's configuration, overridden by the task, and with the job's SLURM account.

    An option that nobody sets is left to SLURM. Only CPUs and memory have defaults, because they
    decide how many units go into a job. The `extra_lines` of all are joined. The values of
    `user_local_exports` are paths relative to `cache_dir`, if the job has one. `mem_factor`
    multiplies the memory of units that ran out of it, but not beyond `max_mem_per_job`.

    Raises:
        SlurmRequestError: the task needs a GPU, but the resource does not say how to get one.
    """
    layers: list[SlurmConfigSet | SlurmMeta] = [config.default_slurm_config]
    if meta.needs_gpu:
        if config.gpu_slurm_config is None:
            raise SlurmRequestError(
                "The task has needs_gpu, but the resource has no gpu_slurm_config in its "
                "jobs_runner_config: set that, or choose a resource with GPUs."
            )
        layers.append(config.gpu_slurm_config)
    layers.append(meta)
    options = {each.name for each in fields(SlurmRequest)}
    said: dict[str, Any] = {}
    for layer in layers:
        known = options - {"mem"} if layer.mem == "auto" else options
        said |= layer.model_dump(include=known, exclude_defaults=True)
    if slurm_account is not None:
        said["account"] = slurm_account
    mem = mebibytes(said.get("mem", DEFAULT_MEM))
    most = max(mem, mebibytes(config.batching_config.max_mem_per_job))
    said["mem"] = min(math.ceil(mem * mem_factor), most)
    said["extra_lines"] = tuple(line for layer in layers for line in layer.extra_lines)
    exports = {
        name: value if cache_dir is None else str(PurePosixPath(cache_dir, value))
        for name, value in config.user_local_exports.items()
    }
    return SlurmRequest(**said, exports=exports, max_running_jobs=config.max_running_jobs)


def sbatch_script(
    request: SlurmRequest,
    *,
    folder: PurePosixPath,
    batches: Iterable[int],
    parallel_tasks: int,
    python: str,
    job_name: str,
    comment: str,
    worker_init: str | None = None,
    offset: int = 0,
) -> str:
    """The script of an array that runs these batches, each as a SLURM job.

    Batch n is in `folder/<n>`, n with six digits, and `python` runs `folder/unit_runner.py` on it,
    `parallel_tasks` units at once. The job's output goes to `folder/slurm-<array>_<index>.out`. The
    index is n - `offset`, because the indexes of an array must be less than the cluster's
    `MaxArraySize`. `worker_init` has lines of shell to execute before the runner.

    When an element begins, it writes the array's id to `<comment>.job` in the batch's folder, and
    ends at once if `<comment>.void` exists there. So it can be found out what became of a script,
    and a script that was given up never runs, whatever SLURM's commands say.

    Raises:
        ValueError: the folder, the job name or the comment has a control character, or the folder
            a backslash.
    """
    if "\\" in str(folder):
        raise ValueError(f"SLURM writes no output to folders with a backslash, as {str(folder)!r}.")
    at_once = f"%{request.max_running_jobs}" if request.max_running_jobs else ""
    options = {
        "array": f"{array_of(batch - offset for batch in batches)}{at_once}",
        "job-name": job_name,
        "comment": comment,
        "chdir": str(folder),
        "output": f"{str(folder).replace('%', '%%')}/{_OUTPUT}",
        "signal": _TELL_OF_TIME,
        **_resources(request, parallel_tasks),
    }
    lines = request.extra_lines
    directives = [f"#SBATCH --{name}={_quoted(name, value)}" for name, value in options.items()]
    directives += [line for line in lines if is_directive(line)]
    setup = [line for line in lines if not is_directive(line)]
    setup += (worker_init or "").splitlines()
    setup += [f"export {name}={shlex.quote(value)}" for name, value in request.exports.items()]
    index = f"$((SLURM_ARRAY_TASK_ID + {offset}))" if offset else "$SLURM_ARRAY_TASK_ID"
    runner = shlex.quote(f"{folder}/unit_runner.py")
    batch = f'{shlex.quote(f"{folder}/")}"$(printf %06d "{index}")"'
    # --no-requeue: only the process that follows a batch knows whether it may be submitted again. A
    # controller that was killed starts jobs again nevertheless; therefore --wait.
    return f"""\
{request.shebang_line}
{_lines(directives)}\
#SBATCH --no-requeue

: # Below the first command no line is read as an option.
batch={batch}
echo "$SLURM_ARRAY_JOB_ID" > "$batch"/{shlex.quote(comment)}.job
[ ! -e "$batch"/{shlex.quote(comment)}.void ] || exit 0
{_lines([*_cpus_of_a_unit(request), *setup])}\
exec {shlex.quote(python)} -I -S {runner} --wait {batch}
"""


def _cpus_of_a_unit(request: SlurmRequest) -> list[str]:
    """Have each unit see its own CPUs, as many as it may use, not those of the SLURM job.

    SLURM_TRES_PER_TASK, of newer versions of SLURM, would contradict that, and `srun` not run.
    """
    cpus = f"SLURM_CPUS_PER_TASK={request.cpus_per_task} SLURM_CPUS_ON_NODE={request.cpus_per_task}"
    return [f"export {cpus} SLURM_NTASKS=1 SLURM_NPROCS=1", "unset SLURM_TRES_PER_TASK"]


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def array_of(indexes: Iterable[int]) -> str:
    """Indexes in the form of `sbatch --array`: sorted, with ranges for neighbours, as '0-3,7'."""
    ranges: list[list[int]] = []
    for index in sorted(indexes):
        if ranges and index == ranges[-1][-1] + 1:
            ranges[-1][1:] = [index]
        else:
            ranges.append([index])
    return ",".join("-".join(map(str, bounds)) for bounds in ranges)


def _resources(request: SlurmRequest, parallel_tasks: int) -> dict[str, str]:
    """The options of `sbatch` for a SLURM job that runs `parallel_tasks` units at once."""
    if request.use_mem_per_cpu:
        memory = {"mem-per-cpu": f"{-(-request.mem // request.cpus_per_task)}M"}
    else:
        memory = {"mem": f"{request.mem * parallel_tasks}M"}
    as_they_are = (
        *("time", "partition", "account", "constraint", "gres", "gpus"),
        *("nodes", "nodelist", "exclude"),
    )
    others = {name: str(value) for name in as_they_are if (value := getattr(request, name))}
    return {"cpus-per-task": str(request.cpus_per_task * parallel_tasks), **memory, **others}


def _quoted(name: str, value: str) -> str:
    """A value as `sbatch` reads it in a script, where backslashes escape even between quotes."""
    if _CONTROL_CHARACTER.search(value):
        raise ValueError(
            f"The value {value!r} of --{name} has a line break or control character, which a "
            "script for SLURM cannot have: remove it."
        )
    if _NEEDS_NO_QUOTES.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
