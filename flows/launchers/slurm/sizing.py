"""How the units of a phase become SLURM jobs: how many, of what size, and what each unit gets."""

from dataclasses import dataclass

from flows.launchers.slurm.batching import plan_batching
from flows.launchers.slurm.script import SlurmRequest, resolve_request
from fractal_models.schemas.slurm import JobRunnerConfigSLURM, SlurmMeta


@dataclass(frozen=True, slots=True)
class Sizing:
    """The number of units in each SLURM job, and how many of them run at once in it."""

    sizes: list[int]
    parallel_tasks: int


def request_of(
    config: JobRunnerConfigSLURM,
    meta: SlurmMeta,
    slurm_account: str | None,
    *,
    cache_dir: str | None = None,
    attempt: int = 1,
) -> SlurmRequest:
    """What to ask of SLURM for each unit; later attempts may get more memory (`mem_factor`).

    Raises:
        SlurmRequestError: the task asks for what the resource does not have.
    """
    factor = (meta.retry.mem_factor or 1.0) ** (attempt - 1)
    return resolve_request(config, meta, slurm_account, cache_dir=cache_dir, mem_factor=factor)


def sizing_of(
    num_units: int, config: JobRunnerConfigSLURM, meta: SlurmMeta, request: SlurmRequest
) -> Sizing:
    """Divide units (at least 1), each of which gets what `request` says, into SLURM jobs.

    Raises:
        BatchingError: they do not fit into SLURM jobs.
    """
    batching = plan_batching(
        num_units,
        cpus_per_task=request.cpus_per_task,
        mem=request.mem,
        config=config.batching_config,
        tasks_per_job=meta.tasks_per_job,
        parallel_tasks_per_job=meta.parallel_tasks_per_job,
    )
    sizes = [len(units) for units in batching.split(range(num_units))]
    # A SLURM job gets the GPUs of one unit, so it runs one unit at once, unless the task says how
    # many units share the GPUs.
    alone = (meta.needs_gpu or request.gpus) and meta.parallel_tasks_per_job is None
    return Sizing(sizes, 1 if alone else batching.parallel_tasks_per_job)
