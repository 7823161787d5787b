"""The launcher that runs batches as SLURM jobs.

A batch is split into parts. Each part is a batch folder on the cluster and one element of a job
array. Everything that the parts do is mirrored into the batch's folder here, so this folder has the
same files as that of a local batch.
"""

import asyncio
from pathlib import Path

from flows.launchers.base import BatchEnd, OnResults
from flows.launchers.slurm.batch import SlurmBatch
from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.state import SlurmState
from flows.units.batch import Batch, write_batch


class SlurmLauncher:
    """Runs the batches of one job on a cluster."""

    def __init__(self, context: SlurmContext) -> None:
        self.context = context
        self._followed: dict[Path, SlurmBatch] = {}

    async def run(self, batch: Batch, on_results: OnResults) -> BatchEnd:
        """See `Launcher.run`.

        Raises:
            BatchingError, SlurmRequestError, ValueError: the units do not fit into SLURM jobs.
            SubmissionRefusedError: SLURM refuses the jobs.
            CommandError: a command on the cluster failed.
        """
        folder = batch.folder.absolute()
        await asyncio.to_thread(write_batch, batch)
        await asyncio.to_thread(self._mark)
        state = await asyncio.to_thread(SlurmState.read, folder) or self.context.split(batch)
        followed = self._followed[folder] = SlurmBatch(self.context, folder, state, batch)
        try:
            await followed.to_its_end(on_results)
        except asyncio.CancelledError:
            followed.stop()
            await followed.to_its_end(on_results)
            raise
        finally:
            followed.has_ended.set()
        return followed.end()

    def _mark(self) -> None:
        if (mark := self.context.mark) is not None:
            mark.parent.mkdir(exist_ok=True)
            mark.touch()

    def describe(self, batch: Batch) -> str:
        """See `Launcher.describe`."""
        return self.context.describe(batch)

    def memory_of(self, batch: Batch) -> int | None:
        """See `Launcher.memory_of`."""
        return self.context.request(batch).mem

    async def stop(self, folder: Path) -> None:
        """See `Launcher.stop`. SLURM jobs that do not end within two minutes are left to SLURM."""
        folder = folder.absolute()
        followed = self._followed.get(folder)
        if followed is not None and not followed.has_ended.is_set():
            followed.stop()
            await followed.has_ended.wait()
            return
        # The state in memory is known even if the folder was removed.
        state = followed.state if followed else await asyncio.to_thread(SlurmState.read, folder)
        if state is not None:
            left = SlurmBatch(self.context, folder, state, None)
            left.stop()
            await left.to_its_end(_leave_to_the_reader)

    async def close(self) -> None:
        """See `Launcher.close`."""
        await self.context.cluster.transport.close()
        await self.context.cluster.query_transport.close()


async def _leave_to_the_reader(_: object) -> None:
    """Do nothing with results: they are in the folder, where they can be read."""
