"""A cluster that lies: whatever is heard of its commands, work that goes well there does not fail.

By day there are 12 rounds, `LIES_SEED` says which ones; the seed of a session is printed. A round
takes some seconds on a real cluster.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from flows.launchers.base import BatchEnd
from flows.launchers.slurm.cluster import Cluster as JobCluster
from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.launcher import SlurmLauncher
from flows.launchers.slurm.pace import Pace
from flows.launchers.slurm.queue import SlurmQueue
from flows.process.transport import LocalTransport
from tests import night
from tests.cluster import Cluster
from tests.flows.launchers.slurm.test_launcher import PYTHON, Bench, config
from tests.lab import eventually
from tests.lying_site import LIES, KilledError, Lie, LyingSite, LyingTransport

SEED = int(os.environ.get("LIES_SEED", night.SEED or secrets.randbelow(2**32)))
PATIENCE = 1.0
LONGEST_SECONDS = 60.0


class Round:
    """A batch of four units in two elements of an array, on a site that lies."""

    def __init__(self, cluster: Cluster, folder: Path, lies: dict[str, list[Lie | None]]) -> None:
        self.bench = Bench(cluster, LocalTransport(cluster.user), folder)
        self.site = LyingSite(cluster, lies)
        self.batch = self.bench.batch(4, seconds=1.0)

    def launcher(self, killed_at: int | None = None) -> SlurmLauncher:
        bench = self.bench
        transport = LyingTransport(self.site, bench.transport, killed_at)
        looking = LyingTransport(self.site, LocalTransport(), killed_at)

        async def on_submitted(job_id: int) -> None:
            bench.submitted.append(job_id)

        return SlurmLauncher(
            SlurmContext(
                cluster=JobCluster(transport, looking, PYTHON, PurePosixPath(bench.there)),
                queue=SlurmQueue(bench.queue_file, looking, 0.2, user=bench.cluster.user),
                pace=Pace(bench.queue_file.with_name("pace"), 0.05, bench.cluster.user),
                config=config(),
                home=bench.home,
                account=None,
                worker_init=None,
                seconds=0.1,
                on_submitted=on_submitted,
                say=bench.said.append,
                patience=PATIENCE,
            )
        )

    async def run(self, *, stops_after: float | None, killed_at: int | None) -> BatchEnd:
        """Run the batch, in another process after one was killed; it may be stopped meanwhile."""
        try:
            return await self._run(self.launcher(killed_at), stops_after)
        except KilledError:
            return await self._run(self.launcher(), stops_after)

    async def _run(self, launcher: SlurmLauncher, stops_after: float | None) -> BatchEnd:
        running = asyncio.create_task(launcher.run(self.batch, self.bench.on_results))
        if stops_after is not None:
            await asyncio.wait([running], timeout=stops_after)
            if not running.done():
                self.site.is_stopped = True
                await launcher.stop(self.batch.folder)
        return await running

    async def left_running(self) -> list[str]:
        """What still lives of what was submitted, but for what ends as soon as it begins."""
        ids = {submitted.job_id for submitted in self.site.submitted}
        return [f"{array}_{n}" for array, n in await self.site.truth() if array in ids]


@pytest.fixture
async def idle_cluster(cluster: Cluster) -> AsyncIterator[Cluster]:
    print(f"LIES_SEED={SEED}")
    yield cluster
    await cluster.cancel_all()


@seed(SEED)
@settings(
    max_examples=night.examples(12, 300),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a round is slow, and no two are the same
    suppress_health_check=list(HealthCheck),
)
@given(
    lies=LIES,
    stops_after=st.none() | st.none() | st.floats(min_value=0.0, max_value=2.0),
    killed_at=st.none() | st.integers(min_value=1, max_value=12),
)
async def test_what_goes_well_on_the_cluster_does_not_fail(
    idle_cluster: Cluster,
    tmp_path_factory: pytest.TempPathFactory,
    lies: dict[str, list[Lie | None]],
    stops_after: float | None,
    killed_at: int | None,
) -> None:
    one = Round(idle_cluster, tmp_path_factory.mktemp("round"), lies)
    async with asyncio.timeout(LONGEST_SECONDS):
        end = await one.run(stops_after=stops_after, killed_at=killed_at)
    answers = sum(one.site.calls.values())
    print(f"{one.site.told} lies in {answers} answers, {len(one.site.submitted)} submissions")
    told = one.bench.said, dict(one.site.calls)
    assert not one.site.wrongs, told
    if stops_after is None or not end.stopped:
        assert not end.missing, (end, *told)
        assert one.bench.succeeded == [0, 1, 2, 3], told
        assert set(one.bench.ended().values()) == {1}, told
    await eventually(one.left_running, lambda found: not found)
