"""What SLURM says of jobs: how it is read, and that it is asked seldom."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.launchers.slurm.pending import Pending
from flows.launchers.slurm.queue import (
    ElementState,
    SlurmQueue,
    Snapshot,
    parse,
    queue_file,
    silence,
)
from flows.launchers.slurm.watch import Element
from flows.process.transport import Completed, TransportError

A, B = f"fractal-{'a' * 32}", f"fractal-{'b' * 32}"
HEADER = "fractal-job|COMMENT|UID|ARRAY_JOB_ID|ARRAY_TASK_ID|STATE|REASON|.\n"
LINES = f"""\
{HEADER}\
fractal-job|{A}|1001|12|0|RUNNING|None|.
fractal-job|{A}|1001|12|1|PENDING|(Resources, Priority)|.
fractal-job|{B}|1001|13|0|TIMEOUT|TimeLimit|.
fractal-job|(null)|1001|14|N/A|RUNNING|None|.
"""


class FakeSqueue:
    """A fake cluster that counts how often it is asked, and may be away."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False
        self.answer = LINES, ""

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        self.asked += 1
        await asyncio.sleep(0.05)
        if self.is_away:
            raise TransportError("it is away")
        stdout, stderr = self.answer
        return Completed(tuple(command), 0, stdout.encode(), stderr.encode())

    async def close(self) -> None:
        """Nothing is kept."""


def read(lines: str) -> Snapshot:
    snapshot = parse(1.0, lines)
    assert snapshot is not None
    return snapshot


def test_elements_are_known_by_comment_and_index() -> None:
    snapshot = read(LINES)
    assert snapshot.elements == {
        (A, 0): ElementState("RUNNING", "None"),
        (A, 1): ElementState("PENDING", "(Resources, Priority)"),
        (B, 0): ElementState("TIMEOUT", "TimeLimit"),
    }
    assert snapshot.arrays == {A: 12, B: 13}
    assert [state.is_alive for state in snapshot.elements.values()] == [True, True, False]


async def test_it_is_asked_once_per_interval_however_many_want_to_know(tmp_path: Path) -> None:
    squeue = FakeSqueue()
    queues = [SlurmQueue(tmp_path / "queue.json", squeue, 60.0) for _ in range(5)]
    await asyncio.gather(*(queue.latest() for queue in queues))
    found = await asyncio.gather(*(queue.latest() for queue in queues))
    assert squeue.asked == 1
    assert all(snapshot == found[0] and snapshot is not None for snapshot in found)


async def test_while_it_does_not_answer_the_last_answer_stays(tmp_path: Path) -> None:
    squeue = FakeSqueue()
    queue = SlurmQueue(tmp_path / "queue.json", squeue, 0.0)
    first = await queue.latest()
    squeue.is_away = True
    assert await queue.latest() == first
    assert squeue.asked == 2


async def test_nothing_is_known_before_there_was_an_answer(tmp_path: Path) -> None:
    squeue = FakeSqueue()
    squeue.is_away = True
    assert await SlurmQueue(tmp_path / "queue.json", squeue, 0.0).latest() is None


NOISE = [
    "",
    "*** Maintenance | Monday | 8:00 ***\n",
    "CLUSTER: b\n",
    "slurm_load_jobs: warning\n" * 3,
    "\ufffd\x00\x1b[1m\n",
    f"fractal-job|{A}|1001|12|0|RUN",  # cut, and the next line is in it
    f"fractal-job|{B}|1001|13|0|FAILED|a reason with\na break\n",
    "fractal-job|of somebody else|1001|1|0|RUNNING|None|.\n",
    f"fractal-job|{A}|1001|99999999999|0|RUNNING|None|.\n",
    f"fractal-job|{A}|1001|0|0|RUNNING|None|.\n",
]


@pytest.mark.parametrize("noise", NOISE)
def test_what_is_printed_around_is_left_out(noise: str) -> None:
    assert read(f"{noise}{LINES}{noise}").arrays == {A: 12, B: 13}
    assert len(read(f"{noise}{LINES}{noise}").elements) == 3


def test_lines_that_cannot_be_read_are_counted() -> None:
    assert read(LINES).not_read == 1  # of what is no array
    assert read(f"{LINES}fractal-job|{A}|1001|12|0|RUN\nfractal-job||||\n").not_read == 3


def test_without_a_line_or_the_header_it_is_no_answer() -> None:
    assert parse(1.0, "") is None
    assert parse(1.0, "Welcome!\n") is None
    assert read(HEADER).elements == {}
    assert read(LINES.removeprefix(HEADER)).arrays == {A: 12, B: 13}


def test_a_comment_may_be_changed_by_the_site_around_ours() -> None:
    line = f"fractal-job|lab:{A};budget=7|1001|12|0|RUNNING|a|b|.\n"
    assert read(line).elements == {(A, 0): ElementState("RUNNING", "a|b")}


def test_of_an_element_told_twice_the_living_counts() -> None:
    lines = [f"fractal-job|{A}|1001|12|0|{state}|None|.\n" for state in ("RUNNING", "REVOKED")]
    for order in (lines, lines[::-1]):
        assert read("".join(order)).elements[A, 0].is_alive


async def test_an_answer_with_a_complaint_or_nothing_in_it_does_not_count(tmp_path: Path) -> None:
    squeue = FakeSqueue()
    queue = SlurmQueue(tmp_path / "queue.json", squeue, 0.0)
    first = await queue.latest()
    for stdout, stderr in ((HEADER, "squeue: error: Invalid user: ann\n"), ("Welcome!\n", "")):
        squeue.answer = stdout, stderr
        assert await queue.latest() == first


def test_only_jobs_of_the_user_are_looked_at() -> None:
    lines = f"{LINES}fractal-job|{B}|1002|15|3|RUNNING|None|.\n"
    snapshot = parse(1.0, lines, uid=1002)
    assert snapshot is not None
    assert snapshot.elements == {(B, 3): ElementState("RUNNING", "None")}
    assert snapshot.arrays == {B: 15}


def test_why_jobs_wait_is_told_once_and_when_it_lasts() -> None:
    elements = [Element(A, 0, "12_0"), Element(A, 1, "12_1")]
    patient, hasty = Pending(60.0), Pending(0.0)
    assert patient.news(elements, read(LINES)) == ""
    assert "1 SLURM job for (Resources, Priority)" in hasty.news(elements, read(LINES))
    assert hasty.news(elements, read(LINES)) == ""
    assert "2 SLURM jobs for JobHeldAdmin" in hasty.news(
        elements,
        read("".join(f"fractal-job|{A}|1001|12|{n}|PENDING|JobHeldAdmin|.\n" for n in (0, 1))),
    )


async def test_a_cluster_is_silent_while_those_who_ask_have_no_answer(tmp_path: Path) -> None:
    cluster, path = FakeSqueue(), queue_file(tmp_path, 7, 1)
    queue = SlurmQueue(path, cluster, interval=0)
    lock = path.with_name(f"{path.name}.lock")
    assert silence(tmp_path, 7) == 0

    cluster.is_away = True
    await queue.latest()
    assert silence(tmp_path, 7) >= 3600  # it has never answered
    cluster.is_away = False
    await queue.latest()
    assert silence(tmp_path, 7) == 0

    cluster.is_away = True
    minutes_ago = time.time() - 100
    os.utime(path, (minutes_ago, minutes_ago))
    await queue.latest()
    assert 100 <= silence(tmp_path, 7) < 200
    assert silence(tmp_path, 8) == 0  # of another resource
    long_ago = time.time() - 300
    os.utime(lock, (long_ago, long_ago))
    os.utime(path, (long_ago - 100, long_ago - 100))
    assert silence(tmp_path, 7) == 0  # nobody asks any more
