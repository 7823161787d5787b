"""What all batches of a job on a SLURM cluster have in common."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from flows.launchers.slurm.cluster import Cluster
from flows.launchers.slurm.pace import Pace
from flows.launchers.slurm.queue import SlurmQueue
from flows.launchers.slurm.right_size import Growth, grown_request
from flows.launchers.slurm.script import SlurmRequest
from flows.launchers.slurm.sizing import request_of, sizing_of
from flows.launchers.slurm.state import SlurmState
from flows.reports.quantities import count, memory
from flows.units.batch import Batch
from fractal_models.schemas.slurm import JobRunnerConfigSLURM, mebibytes, slurm_meta_of


@dataclass(frozen=True)
class SlurmContext:
    """What all batches of a job have in common.

    `home` is the job's folder here. `cache_dir` is a folder of the user there, where tasks keep
    what later jobs need. `pace` spaces out the `sbatch` of all jobs of the resource. `on_submitted`
    gets the id of each SLURM job, and gets it again after an interruption; `say` gets messages for
    people. Results are looked for every `seconds`. `patience` is how many seconds an answer of the
    cluster, or a missing one, must last before it is believed. `mark` is a file to make when the
    job gets a folder on the cluster.
    """

    cluster: Cluster
    queue: SlurmQueue
    pace: Pace
    config: JobRunnerConfigSLURM
    home: Path
    account: str | None
    worker_init: str | None
    seconds: float
    on_submitted: Callable[[int], Awaitable[None]]
    say: Callable[[str], None]
    patience: float = 60.0
    cache_dir: str | None = None
    mark: Path | None = None

    def remote_path(self, path: Path) -> PurePosixPath:
        """The path on the cluster of a file or folder of the job."""
        return self.cluster.home / path.absolute().relative_to(self.home.absolute()).as_posix()

    def request(self, batch: Batch) -> SlurmRequest:
        """What to ask of SLURM for each unit; later attempts may get more memory (`mem_factor`).

        Raises:
            SlurmRequestError, ValueError: the task asks for what the resource does not have.
        """
        meta = slurm_meta_of(dict(batch.meta))
        return request_of(
            self.config, meta, self.account, cache_dir=self.cache_dir, attempt=batch.attempt
        )

    def grown(self, batch: Batch, state: SlurmState, growth: Growth) -> SlurmRequest:
        """As `request`, for units of a batch that was divided like this, and that need more."""
        most = mebibytes(self.config.batching_config.max_mem_per_job) // state.parallel_tasks
        request = self.request(batch)
        if batch.grows and state.mem is not None:  # what earlier units needed may be more by now
            request = replace(request, mem=state.mem)
        return grown_request(request, growth, most)

    def describe(self, batch: Batch) -> str:
        """A phrase that says how a batch is divided into SLURM jobs, and what each unit gets.

        Raises:
            BatchingError, SlurmRequestError, ValueError: as `split`.
        """
        state, request = self.split(batch), self.request(batch)
        largest = max(state.sizes)
        sizes = f" of up to {largest} units, {state.parallel_tasks} at once" if largest > 1 else ""
        limits = [
            f", {name} {value}"
            for name in ("time", "partition", "account", "gpus", "gres")
            if (value := getattr(request, name))
        ]
        return (
            f"in {count(len(state.sizes), 'SLURM job')}{sizes}, each unit with "
            f"{count(request.cpus_per_task, 'CPU')} and {memory(request.mem * 1024)}"
            f"{''.join(limits)}, as {self.cluster.transport.place}"
        )

    def split(self, batch: Batch) -> SlurmState:
        """Divide a batch into parts, one per SLURM job.

        Raises:
            BatchingError, SlurmRequestError, ValueError: its units do not fit into SLURM jobs.
        """
        meta = slurm_meta_of(dict(batch.meta))
        request = self.request(batch)
        sizing = sizing_of(len(batch.units), self.config, meta, request)
        return SlurmState(sizing.sizes, sizing.parallel_tasks, mem=request.mem)
