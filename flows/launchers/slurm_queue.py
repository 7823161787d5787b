"""What SLURM says of the jobs of a resource: asked once per interval, however many ask here."""

import asyncio
import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.launchers.base import write_whole
from flows.launchers.transport import CommandError, Transport, TransportError

# The name of all SLURM jobs of ours, by which they are asked for.
JOB_NAME = "fractal"

# Our comment, the array's id, the index in it, the state, its reason; also of those that ended so
# recently that SLURM remembers them. Known they are by the comment: a controller that was killed
# can give an id to another job.
_COMMAND = (
    "squeue",
    "--noheader",
    "--array",
    "--states=all",
    f"--name={JOB_NAME}",
    "--format=%k|%F|%K|%T|%r",
)
_ASK_SECONDS = 60.0  # `squeue` waits that long for a controller that does not answer

# States in which a job runs, or may do so yet.
_ALIVE = {
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "SUSPENDED",
    "STOPPED",
    "COMPLETING",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
}

Element = tuple[str, int]


@dataclass(frozen=True)
class ElementState:
    """How an element of a job array stands, in SLURM's words."""

    state: str
    reason: str

    @property
    def is_alive(self) -> bool:
        return self.state in _ALIVE


@dataclass(frozen=True)
class Snapshot:
    """The state of all our jobs that SLURM remembers.

    `elements` are by the array's comment and the index in it, `arrays` the ids by comment. SLURM
    was asked at `asked_at`, in seconds since the epoch: what was submitted by then is there.
    """

    asked_at: float
    elements: dict[Element, ElementState]
    arrays: dict[str, int]


class SlurmQueue:
    """Asks `squeue` for all processes that work for a resource on this host.

    The answer is kept in `path`. It is at most `interval` seconds old, or SLURM did not answer.
    """

    def __init__(self, path: Path, transport: Transport, interval: float) -> None:
        self._path = path
        self._transport = transport
        self._interval = interval

    async def latest(self) -> Snapshot | None:
        """The last answer, renewed if it is due; None before there is one."""
        with self._turn() as is_ours:
            if is_ours:
                with contextlib.suppress(TransportError, CommandError):
                    await self._ask()
        return await asyncio.to_thread(self._read)

    async def _ask(self) -> None:
        asked_at = time.time()
        answer = (await self._transport.run(_COMMAND, seconds=_ASK_SECONDS)).check()
        content = {"asked_at": asked_at, "lines": answer.stdout.decode(errors="replace")}
        await asyncio.to_thread(write_whole, self._path, json.dumps(content).encode())

    def _read(self) -> Snapshot | None:
        try:
            content = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return parse(content["asked_at"], content["lines"])

    @contextlib.contextmanager
    def _turn(self) -> Iterator[bool]:
        """Whether it is time to ask, and nobody else does: who asks holds the lock meanwhile.

        The time of the lock file is that of the last try, so that one that failed is one too.
        """
        lock = self._path.with_name(f"{self._path.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            size = file.seek(0, 2)
            if size and time.time() - lock.stat().st_mtime < self._interval:
                yield False
                return
            file.truncate(0)
            file.write("asked\n")
            file.flush()
            yield True


async def describe_queue(
    transport: Transport, *, user: str | None = None, accounts: Sequence[str] | None = None
) -> str:
    """The table that `squeue` prints for people: of all jobs, of a user or of some accounts.

    Raises:
        TransportError, CommandError: SLURM does not answer.
    """
    command = ["squeue"]
    if user is not None:
        command.append(f"--user={user}")
    if accounts is not None:
        command.append(f"--account={','.join(accounts)}")
    answer = (await transport.run(command, seconds=_ASK_SECONDS)).check()
    return answer.stdout.decode(errors="replace")


def parse(asked_at: float, lines: str) -> Snapshot:
    """The answer of `squeue` to `_COMMAND`; lines of what is no array are left out."""
    elements: dict[Element, ElementState] = {}
    arrays: dict[str, int] = {}
    for line in lines.splitlines():
        comment, array, index, state, reason = line.split("|", 4)
        if index.isdigit():
            elements[comment, int(index)] = ElementState(state, reason)
            arrays[comment] = int(array)
    return Snapshot(asked_at, elements, arrays)
