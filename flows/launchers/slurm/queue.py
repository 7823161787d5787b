"""What `squeue` says of the jobs of a resource; asked once per interval for all."""

import asyncio
import contextlib
import fcntl
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.process.transport import CommandError, Transport, TransportError
from flows.reports.text import printable
from flows.units.files import write_whole

# The name of all SLURM jobs of ours, by which they are asked for.
JOB_NAME = "fractal"

LARGEST_JOB_ID = 2**31 - 1  # that the database takes

# Per line a mark, our comment, the array's id, the index in it, the state, its reason, and an end;
# also of jobs that ended so recently that SLURM remembers them. Known they are by the comment: a
# controller that was killed can give an id to another job. With the header it is an answer also
# when there is no job.
_MARK, _END = "fractal-job|", "|."
_HEADER = f"{_MARK}COMMENT|ARRAY_JOB_ID|"
_LINE = re.compile(
    rf"{re.escape(_MARK)}[^|]*(?P<token>fractal-[0-9a-f]{{32}})[^|]*"
    rf"\|(?P<array>\d{{1,10}})\|(?P<index>\d{{1,9}})\|(?P<state>[A-Z_]{{2,30}})\|(?P<reason>.{{0,500}}?){re.escape(_END)}"
)
_COMMAND = (
    *("env", "LC_ALL=C"),
    "squeue",
    "--array",
    "--states=all",
    f"--format={_MARK}%k|%F|%K|%T|%r{_END}",
)
_ASK_SECONDS = 60.0  # `squeue` waits that long for a controller that does not answer

_LONGEST_ANSWER = 16 * 1024 * 1024  # some hundred thousand elements of arrays
_COMPLAINT = b"squeue: error:"  # with exit code 0, as for a user whom it does not know

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
    was asked at `asked_at`, in seconds since the epoch. `not_read` are lines that could not be.
    """

    asked_at: float
    elements: dict[Element, ElementState]
    arrays: dict[str, int]
    not_read: int = 0


class SlurmQueue:
    """Asks `squeue` for all processes that work for a resource on this host; of one user's jobs.

    The answer is kept in `path`. It is at most `interval` seconds old, or SLURM did not answer.
    """

    def __init__(
        self, path: Path, transport: Transport, interval: float, user: str | None = None
    ) -> None:
        self._path = path
        self._command = _COMMAND if user is None else (*_COMMAND, f"--user={user}")
        self._transport = transport
        self.interval = interval

    async def latest(self) -> Snapshot | None:
        """The last answer, renewed if it is due; None before there is one."""
        with self._turn() as is_ours:
            if is_ours:
                with contextlib.suppress(TransportError, CommandError):
                    await self._ask()
        return await asyncio.to_thread(self._read)

    async def _ask(self) -> None:
        """Ask, and keep the answer; nothing of one that tells nothing of jobs."""
        asked_at = time.time()
        answer = (await self._transport.run(self._command, seconds=_ASK_SECONDS)).check()
        lines = answer.stdout[:_LONGEST_ANSWER].decode(errors="replace")
        if _COMPLAINT not in answer.stderr and parse(asked_at, lines) is not None:
            content = {"asked_at": asked_at, "lines": lines}
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
            # It is negative where the clock was set back.
            if size and 0 <= time.time() - lock.stat().st_mtime < self.interval:
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


def parse(asked_at: float, lines: str) -> Snapshot | None:
    """The answer of `squeue` to `_COMMAND`; None if there is nothing of one in it.

    What is printed around it is left out, and so are lines of others, of what is no array, and such
    as cannot be read. Of an element that is told of twice, as in a federation, the living counts.
    """
    elements: dict[Element, ElementState] = {}
    arrays: dict[str, int] = {}
    begun, not_read = False, 0
    for line in lines.split("\n"):
        begun = begun or _HEADER in line
        if _MARK not in line or _HEADER in line:
            continue
        found = _LINE.search(line)
        if found is None or not 0 < int(found["array"]) <= LARGEST_JOB_ID:
            not_read += 1
            continue
        element = found["token"], int(found["index"])
        how = ElementState(found["state"], printable(found["reason"]))
        if element not in elements or how.is_alive:
            elements[element] = how
            arrays[found["token"]] = int(found["array"])
    if not begun and not elements:
        return None
    return Snapshot(asked_at, elements, arrays, not_read)
