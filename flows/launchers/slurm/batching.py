"""Plans how many units go into one SLURM job, and how many of them run at once in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from fractal_models.errors import FractalError
from fractal_models.schemas.slurm import BatchingConfigSet, mebibytes

Unit = TypeVar("Unit")


class BatchingError(FractalError):
    """Units do not fit into SLURM jobs as configured; the message names what to change."""


@dataclass(frozen=True, slots=True)
class Batching:
    """`num_units` in `num_jobs` SLURM jobs; in each, `parallel_tasks_per_job` units run at once."""

    num_units: int
    num_jobs: int
    parallel_tasks_per_job: int

    @property
    def tasks_per_job(self) -> int:
        """The number of units in the largest job; every job has this many, or one less."""
        return _ceil(self.num_units, self.num_jobs)

    def split(self, units: Sequence[Unit]) -> list[Sequence[Unit]]:
        """The units of each job, in the order of the units."""
        bounds = [len(units) * job // self.num_jobs for job in range(self.num_jobs + 1)]
        return [units[start:end] for start, end in pairwise(bounds)]


def plan_batching(
    num_units: int,
    *,
    cpus_per_task: int,
    mem: int,
    config: BatchingConfigSet,
    tasks_per_job: int | None = None,
    parallel_tasks_per_job: int | None = None,
) -> Batching:
    """Plan the SLURM jobs for `num_units` (at least 1); `mem` of each unit is in MiB.

    Jobs have the target size (CPUs and memory) as long as their number stays within the target
    number. For more units, jobs become larger, up to the maximum size; then their number grows, up
    to the maximum number; then units queue inside the jobs. A unit above the target size is a job
    of its own. `tasks_per_job` and `parallel_tasks_per_job`, which are given together, replace this
    plan.

    Raises:
        BatchingError: a single unit, or the given values, exceed a maximum of the configuration.
    """
    _check_size(1, cpus_per_task, mem, config)
    if tasks_per_job is not None and parallel_tasks_per_job is not None:
        _check_given(num_units, tasks_per_job, parallel_tasks_per_job, config)
        _check_size(parallel_tasks_per_job, cpus_per_task, mem, config)
        num_jobs, at_once = _ceil(num_units, tasks_per_job), parallel_tasks_per_job
    else:
        at_target = _fitting(
            config.target_cpus_per_job, config.target_mem_per_job, cpus_per_task, mem
        )
        at_once = _fitting(config.max_cpus_per_job, config.max_mem_per_job, cpus_per_task, mem)
        of_target_size = _ceil(num_units, max(at_target, 1))
        of_full_size = min(_ceil(num_units, at_once), config.max_num_jobs)
        num_jobs = min(of_target_size, max(config.target_num_jobs, of_full_size))
    return Batching(num_units, num_jobs, min(at_once, _ceil(num_units, num_jobs)))


def _check_size(at_once: int, cpus_per_task: int, mem: int, config: BatchingConfigSet) -> None:
    max_mem = mebibytes(config.max_mem_per_job)
    for asked, unit, field, limit, maximum in (
        (at_once * cpus_per_task, "CPUs", "cpus_per_task", "cpus", config.max_cpus_per_job),
        (at_once * mem, "MiB of memory", "mem", "mem", max_mem),
    ):
        if asked > maximum:
            units = "One unit needs" if at_once == 1 else f"{at_once} units at once need"
            lower = field if at_once == 1 else f"parallel_tasks_per_job or {field}"
            raise BatchingError(
                f"{units} {asked} {unit}, but max_{limit}_per_job of the resource is {maximum}: "
                f"lower {lower} of the task."
            )


def _check_given(
    num_units: int, tasks_per_job: int, parallel_tasks_per_job: int, config: BatchingConfigSet
) -> None:
    if parallel_tasks_per_job > tasks_per_job:
        raise BatchingError(
            f"parallel_tasks_per_job ({parallel_tasks_per_job}) is more than tasks_per_job "
            f"({tasks_per_job}): lower the one or raise the other."
        )
    if (num_jobs := _ceil(num_units, tasks_per_job)) > config.max_num_jobs:
        raise BatchingError(
            f"{num_units} units with tasks_per_job {tasks_per_job} are {num_jobs} SLURM jobs, but "
            f"max_num_jobs of the resource is {config.max_num_jobs}: raise tasks_per_job of the "
            f"task to {_ceil(num_units, config.max_num_jobs)} or more."
        )


def _fitting(cpus: int, memory: int | str, cpus_per_task: int, mem: int) -> int:
    return min(cpus // cpus_per_task, mebibytes(memory) // mem)


def _ceil(units: int, per_job: int) -> int:
    return -(-units // per_job)
