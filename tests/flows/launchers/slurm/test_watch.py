"""What SLURM does not tell of has not ended for that: it is doubted and looked for."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

import pytest

from flows.launchers.slurm.queue import ElementState, Snapshot
from flows.launchers.slurm.record import FORGOTTEN, look_up
from flows.launchers.slurm.watch import Element, Watch
from flows.process.transport import Completed
from tests.flows.launchers.slurm.test_record import TOKEN, record

PATIENCE = 0.2
ELEMENT = Element(TOKEN, 1, "2_1")
HOME = PurePosixPath("/jobs")
UNKNOWN = b"slurm_load_jobs error: Invalid job id specified\n"
AWAY = 1, b"", b"sacct: error: Sending PersistInit msg: Connection refused\n"


class FakeScontrol:
    """A fake SLURM that answers `scontrol show job` as it is told, and `sacct` by `accounting`.

    At first it has no accounting.
    """

    place = "here"

    def __init__(self, stdout: str = "", stderr: bytes = b"", exit_code: int = 0) -> None:
        self.answer = stdout.encode(), stderr, exit_code
        self.accounting = 1, b"", b"Slurm accounting storage is disabled\n"
        self.asked = self.asked_accounting = 0

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        if "sacct" in command:
            self.asked_accounting += 1
            return Completed(tuple(command), *self.accounting)
        self.asked += 1
        stdout, stderr, exit_code = self.answer
        return Completed(tuple(command), exit_code, stdout, stderr)

    async def close(self) -> None:
        """Nothing is kept."""


def snapshot(*states: str, age: float = 0.0) -> Snapshot:
    elements = dict.fromkeys([(TOKEN, 1)], ElementState(states[0], "None")) if states else {}
    return Snapshot(time.time() - age, elements, {TOKEN: 2} if elements else {})


class FakeTime:
    """A fake of the module `time` whose clocks go only when they are told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now

    monotonic = time


async def ended(
    scontrol: FakeScontrol, told: Snapshot | None, *, patiences: float, element: Element = ELEMENT
) -> ElementState | None:
    """How an element ended, if it did within so many patiences of looking all the time.

    All the time `squeue` tells the same, which stays as old as it is at first.
    """
    watch = Watch(partial(look_up, scontrol, home=HOME), PATIENCE, oldest=5.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.launchers.slurm.watch.time", clock := FakeTime())
        for _ in range(round(20 * patiences)):
            if found := await watch.ended({7: element}, told):
                return found[7]
            clock.now += (step := PATIENCE / 20)
            told = told and replace(told, asked_at=told.asked_at + step)
    return None


@pytest.fixture
def forgetful() -> FakeScontrol:
    return FakeScontrol(stderr=UNKNOWN, exit_code=1)


async def test_what_is_told_is_believed(forgetful: FakeScontrol) -> None:
    assert await ended(forgetful, snapshot("RUNNING"), patiences=2) is None
    assert await ended(forgetful, snapshot("TIMEOUT"), patiences=2) == ElementState(
        "TIMEOUT", "None"
    )
    assert forgetful.asked == 0


@pytest.mark.parametrize("told", [snapshot(), None], ids=["missing", "no answer"])
async def test_what_is_missing_is_forgotten_only_after_patience_and_two_looks(
    forgetful: FakeScontrol, told: Snapshot | None
) -> None:
    assert await ended(forgetful, told, patiences=0.8) is None
    assert forgetful.asked == 0
    assert await ended(forgetful, told, patiences=4) is FORGOTTEN
    assert forgetful.asked == 2


async def test_what_is_missing_and_lives_is_not_forgotten() -> None:
    lives = FakeScontrol(record("RUNNING"))
    assert await ended(lives, snapshot(), patiences=20) is None
    assert 2 < lives.asked < 20


async def test_what_is_missing_and_ended_is_told_with_its_state() -> None:
    found = await ended(FakeScontrol(record("TIMEOUT")), snapshot(), patiences=4)
    assert found == ElementState("TIMEOUT", "None")


async def test_without_any_answer_nothing_is_known() -> None:
    assert await ended(FakeScontrol("Welcome!"), None, patiences=15) is None


async def test_where_only_squeue_answers_it_is_believed_at_last() -> None:
    mute = FakeScontrol("scontrol: not for you", exit_code=1)
    assert await ended(mute, snapshot(), patiences=9) is None
    assert await ended(mute, snapshot(), patiences=14) is FORGOTTEN


async def test_an_old_answer_tells_nothing() -> None:
    lives = FakeScontrol(record("RUNNING"))
    assert await ended(lives, snapshot("NODE_FAIL", age=6.0), patiences=2) is None
    assert lives.asked == 1


async def test_an_element_without_a_certain_id_is_not_looked_for(forgetful: FakeScontrol) -> None:
    unnamed = Element(TOKEN, 1, None)
    assert await ended(forgetful, snapshot(), patiences=3, element=unnamed) is None
    assert forgetful.asked == 0


async def test_accounting_may_be_away_for_as_long_as_slurm_remembers(
    forgetful: FakeScontrol,
) -> None:
    forgetful.accounting = AWAY
    assert await ended(forgetful, snapshot("RUNNING"), patiences=1000) is None
    assert forgetful.asked_accounting == 0


async def test_what_slurm_has_forgotten_waits_for_accounting(forgetful: FakeScontrol) -> None:
    forgetful.accounting = AWAY
    assert await ended(forgetful, snapshot(), patiences=9) is None
    assert await ended(forgetful, snapshot(), patiences=14) is FORGOTTEN
    forgetful.accounting = 0, b"2_1|TIMEOUT|/jobs/job\n", b""
    told = ElementState("TIMEOUT", "as accounting tells")
    assert await ended(forgetful, snapshot(), patiences=9) == told
