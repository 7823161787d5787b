"""What SLURM says of jobs: how it is read, and that it is asked seldom."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from flows.launchers.slurm_queue import ElementState, SlurmQueue, Snapshot, parse
from flows.launchers.transport import Completed, TransportError

A, B = f"fractal-{'a' * 32}", f"fractal-{'b' * 32}"
HEADER = "fractal-job|COMMENT|ARRAY_JOB_ID|ARRAY_TASK_ID|STATE|REASON|.\n"
LINES = f"""\
{HEADER}\
fractal-job|{A}|12|0|RUNNING|None|.
fractal-job|{A}|12|1|PENDING|(Resources, Priority)|.
fractal-job|{B}|13|0|TIMEOUT|TimeLimit|.
fractal-job|(null)|14|N/A|RUNNING|None|.
"""


class FakeSqueue:
    """A fake cluster that counts how often it is asked, and may be away."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        self.asked += 1
        await asyncio.sleep(0.05)
        if self.is_away:
            raise TransportError("it is away")
        return Completed(tuple(command), 0, LINES.encode(), b"")

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
