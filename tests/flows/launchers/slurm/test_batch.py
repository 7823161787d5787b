"""What a batch does when its cluster answers late or not at all; the cluster is a fake."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flows.launchers.slurm.launcher import SlurmLauncher
from flows.launchers.slurm.state import SlurmState
from flows.process.transport import Completed, TransportError
from flows.units.results import UnitResult
from tests.fake_cluster import FakeCluster, batch_of_two, fake_context


class FakeForgetfulCluster(FakeCluster):
    """A fake whose answer to `sbatch` is lost, and to `begun` for as many times as asked."""

    def __init__(self, begun: bytes, lost: int = 0) -> None:
        super().__init__(begun=begun)
        self.lost = lost

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        answer = await super().run(command, stdin, seconds=seconds)
        if "begun" in command:
            self.lost -= 1
        if command[0] == "sbatch" or ("begun" in command and self.lost >= 0):
            raise TransportError("the connection was lost")
        return answer


@pytest.mark.parametrize(
    ("fake", "accounted"),
    [
        (FakeForgetfulCluster(begun=b"[7]"), [7]),
        (FakeForgetfulCluster(begun=b"[7]", lost=1), [7]),
        (FakeForgetfulCluster(begun=b"[]"), []),
    ],
    ids=["at once", "when the cluster answers again", "never"],
)
async def test_a_slurm_job_whose_units_end_before_its_id_is_known_is_accounted(
    fake: FakeForgetfulCluster, accounted: list[int], tmp_path: Path
) -> None:
    submitted: list[int] = []
    results: list[UnitResult] = []

    async def on_submitted(job_id: int) -> None:
        submitted.append(job_id)

    async def on_results(found: list[UnitResult]) -> None:
        results.extend(found)

    batch = batch_of_two(tmp_path)
    launcher = SlurmLauncher(fake_context(tmp_path, fake, on_submitted, lambda _: None))
    async with asyncio.timeout(20):
        end = await launcher.run(batch, on_results)
    assert not end.missing
    assert len(results) == 2
    assert submitted == accounted
    state = SlurmState.read(batch.folder)
    assert state is not None
    assert [each.job_id for each in state.submissions] == (accounted or [None])


async def _ignore(_: object) -> None:
    """Do nothing with what is told."""


class FakeFullCluster(FakeCluster):
    """A fake that takes no SLURM job at the first try."""

    tries = 0

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        answer = await super().run(command, stdin, seconds=seconds)
        if command[0] != "sbatch":
            return answer
        self.tries += 1
        if self.tries > 1:
            return answer
        return replace(answer, exit_code=1, stdout=b"", stderr=b"sbatch: AssocMaxSubmitJobLimit\n")


async def test_others_go_first_after_a_refusal(tmp_path: Path) -> None:
    fake = FakeFullCluster()
    launcher = SlurmLauncher(fake_context(tmp_path, fake, _ignore, lambda _: None))
    async with asyncio.timeout(20):
        await launcher.run(batch_of_two(tmp_path), _ignore)
    assert fake.tries > 1
    assert "user01" in json.loads((tmp_path / "pace").read_text())["refused"]
