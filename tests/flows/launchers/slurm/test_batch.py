"""What a batch does when its cluster answers late or not at all; the cluster is a fake."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flows.launchers.slurm.launcher import SlurmLauncher
from flows.launchers.slurm.right_size import Growth
from flows.launchers.slurm.state import SlurmState
from flows.process.transport import Completed, TransportError
from flows.units.batch import write_batch
from flows.units.results import UnitResult
from tests.fake_cluster import FakeCluster, answer, batch_of_two, fake_context, framed


class FakeForgetfulCluster(FakeCluster):
    """A fake whose answer to `sbatch` is lost, and to `begun` for as many times as asked."""

    def __init__(self, begun: bytes, lost: int = 0) -> None:
        super().__init__(begun=begun)
        self.lost = lost

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        ended = await super().run(command, stdin, seconds=seconds)
        if "begun" in command:
            self.lost -= 1
        if command[0] == "sbatch" or ("begun" in command and self.lost >= 0):
            raise TransportError("the connection was lost")
        return ended


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
        ended = await super().run(command, stdin, seconds=seconds)
        self.tries += command[0] == "sbatch"
        if command[0] != "sbatch" or self.tries > 1:
            return ended
        return replace(ended, exit_code=1, stdout=b"", stderr=b"sbatch: AssocMaxSubmitJobLimit\n")


async def test_others_go_first_after_a_refusal(tmp_path: Path) -> None:
    fake = FakeFullCluster()
    launcher = SlurmLauncher(fake_context(tmp_path, fake, _ignore, lambda _: None))
    async with asyncio.timeout(20):
        await launcher.run(batch_of_two(tmp_path), _ignore)
    assert fake.tries > 1
    assert "user01" in json.loads((tmp_path / "pace").read_text())["refused"]


class FakeRefusingCluster(FakeCluster):
    """A fake whose node refuses the first array; or, if not, where somebody cancelled that."""

    def __init__(self, *, refused: bool) -> None:
        super().__init__(*[answer()] * 2)
        self.refused = refused
        self.tokens: list[str] = []

    def _answer(self, command: Sequence[str], stdin: bytes) -> bytes:
        said = super()._answer(command, stdin)
        if command[0] == "sbatch":
            self.tokens.append(self.token)
            return f"Submitted batch job {len(self.tokens)}\n".encode()
        if "squeue" in command and len(self.tokens) == 1:
            return said.replace(b"RUNNING", b"CANCELLED")
        if "show" in command and "job" in command:
            return "".join(
                f"JobId=1 ArrayTaskId={index} JobState=CANCELLED Reason=None NodeList=vm "
                f"WorkDir=/ Comment={self.token}\n"
                for index in (0, 1)
            ).encode()
        if "end" in command:
            output = "" if self.refused else "*** JOB 1 ON vm CANCELLED AT 2026-11-29T15:14:39 ***"
            return framed(command, json.dumps([["*** CANCELLED ***", [0]], [output, []]]).encode())
        return said


@pytest.mark.parametrize(("refused", "missing"), [(True, ()), (False, (0, 1))])
async def test_what_a_node_refuses_runs_again_but_not_what_somebody_cancelled(
    refused: bool, missing: tuple[int, ...], tmp_path: Path
) -> None:
    fake = FakeRefusingCluster(refused=refused)
    said: list[str] = []
    launcher = SlurmLauncher(fake_context(tmp_path, fake, _ignore, said.append))
    async with asyncio.timeout(20):
        end = await launcher.run(batch_of_two(tmp_path), _ignore)
    assert end.missing == missing
    assert ("LAUNCH_FAILED" in " ".join(said)) == refused
    assert len(fake.tokens) == 1 + refused


class FakeStrictCluster(FakeCluster):
    """A fake that takes SLURM jobs which ask for too much time, and never begins them."""

    cancelled = 0

    def _answer(self, command: Sequence[str], stdin: bytes) -> bytes:
        if command[0] == "scancel":
            self.cancelled += 1
            return b""
        if "collect" in command:
            return framed(command, answer())
        if "show" in command and "job" in command:
            return "".join(
                f"JobId=1 ArrayTaskId={index} JobState=PENDING Reason=None NodeList= "
                f"WorkDir=/ Comment={self.token}\n"
                for index in (0, 1)
            ).encode()
        said = super()._answer(command, stdin)
        return said.replace(b"RUNNING|None", b"PENDING|PartitionTimeLimit")


async def test_units_that_got_more_time_than_slurm_ever_gives_fail_with_its_word(
    tmp_path: Path,
) -> None:
    fake = FakeStrictCluster()
    context = fake_context(tmp_path, fake, _ignore, lambda _: None)
    batch = replace(batch_of_two(tmp_path), meta={"time": "10"}, grows=True)
    write_batch(batch)
    SlurmState([1, 1], 1, more_time={0: 1, 1: 1}).write(batch.folder)
    async with asyncio.timeout(20):
        end = await SlurmLauncher(context).run(batch, _ignore)
    assert set(end.missing) == {0, 1}
    why = "it ran out of time, and SLURM gives no more: PartitionTimeLimit"
    assert end.reasons == {0: why, 1: why}
    assert fake.cancelled == 2


class FakeForbiddingCluster(FakeCluster):
    """A fake that refuses every SLURM job for good."""

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        done = await super().run(command, stdin, seconds=seconds)
        if command[0] != "sbatch":
            return done
        said = b"sbatch: error: Memory specification can not be satisfied\n"
        return replace(done, exit_code=1, stdout=b"", stderr=said)


async def test_units_for_which_slurm_refuses_more_memory_fail_with_its_words(
    tmp_path: Path,
) -> None:
    context = fake_context(tmp_path, FakeForbiddingCluster(), _ignore, lambda _: None)
    batch = replace(batch_of_two(tmp_path), grows=True)
    write_batch(batch)
    SlurmState([1, 1], 1, more_mem={0: 1, 1: 1}).write(batch.folder)
    async with asyncio.timeout(20):
        end = await SlurmLauncher(context).run(batch, _ignore)
    assert set(end.missing) == {0, 1}
    assert "ran out of memory" in end.reasons[0]
    assert "Memory specification can not be satisfied" in end.reasons[1]


async def test_a_batch_that_has_begun_asks_for_the_memory_with_which_it_was_divided(
    tmp_path: Path,
) -> None:
    """What earlier units needed may be more by now; so much may not fit into its SLURM jobs."""
    context = fake_context(tmp_path, FakeCluster(), _ignore, lambda _: None)
    batch = replace(batch_of_two(tmp_path), meta={"mem": 40}, grows=True)
    state = context.split(batch)
    later = replace(batch, meta={"mem": 45})
    assert context.grown(later, state, Growth()).mem == 40
    assert context.grown(replace(later, grows=False), state, Growth()).mem == 45
