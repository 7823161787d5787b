"""Reads the states of a resource's jobs from `squeue`, once per interval for all processes."""

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

# The name of all our SLURM jobs, by which they are found.
JOB_NAME = "fractal"

LARGEST_JOB_ID = 2**31 - 1  # that the database takes

# Each line has a mark, our comment, the user's id, the array's id, the index in it, the state, its
# reason, and an end mark. Jobs that ended recently are listed too, as long as SLURM remembers them.
# Our jobs are recognised by the comment, because a controller that was killed can give an id to
# another job. Thanks to the header, an answer without any job is still recognised as an answer.
_MARK, _END = "fractal-job|", "|."
_HEADER = f"{_MARK}COMMENT|UID|ARRAY_JOB_ID|"
_LINE = re.compile(
    rf"{re.escape(_MARK)}[^|]*(?P<token>fractal-[0-9a-f]{{32}})[^|]*\|(?P<uid>\d{{1,10}})"
    rf"\|(?P<array>\d{{1,10}})\|(?P<index>\d{{1,9}})\|(?P<state>[A-Z_]{{2,30}})\|(?P<reason>.{{0,500}}?){re.escape(_END)}"
)
_COMMAND = (
    *("env", "LC_ALL=C"),
    "squeue",
    "--array",
    "--states=all",
    f"--name={JOB_NAME}",
    f"--format={_MARK}%k|%U|%F|%K|%T|%r{_END}",
)
_ASK_SECONDS = 60.0  # `squeue` waits that long for a controller that does not answer

# Who asks, asks again within this time; and a silence that has no beginning counts as so long.
_ASKING_SECONDS, _NEVER_SECONDS = 180.0, 3600.0

_LONGEST_ANSWER = 16 * 1024 * 1024  # some hundred thousand elements of arrays
_COMPLAINT = b"squeue: error:"  # with exit code 0, as for a user whom it does not know

# States in which a job runs, or may still run.
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
    """The state of an element of a job array, in SLURM's words."""

    state: str
    reason: str

    @property
    def is_alive(self) -> bool:
        return self.state in _ALIVE


@dataclass(frozen=True)
class Snapshot:
    """The states of the jobs of a user, or of all users, that SLURM remembers.

    The keys of `elements` are the array's comment and the index in it; `arrays` has the array ids
    by comment. SLURM was asked at `asked_at`, in seconds since the epoch. `not_read` is the number
    of lines that could not be read.
    """

    asked_at: float
    elements: dict[Element, ElementState]
    arrays: dict[str, int]
    not_read: int = 0


def queue_file(folder: Path, resource_id: int, profile_id: int | None = None) -> Path:
    """Where answers are kept, for the jobs of a profile or of all, in the resource's folder."""
    return folder / f".slurm-queue-{resource_id}-{profile_id or 'all'}.json"


def silence(folder: Path, resource_id: int) -> float:
    """For how many seconds `squeue` has not answered those who ask for jobs of a resource.

    0 if all have their answers, or nobody asks. An answer that never came is missing for an hour.
    """
    found, moment = 0.0, time.time()
    for lock in folder.glob(f".slurm-queue-{resource_id}-*.json.lock"):
        with contextlib.suppress(FileNotFoundError):
            asked = lock.stat().st_mtime
            answer = lock.with_suffix("")
            answered = answer.stat().st_mtime if answer.exists() else asked - _NEVER_SECONDS
            if answered < asked and moment - asked < _ASKING_SECONDS:
                found = max(found, moment - answered)
    return found


class SlurmQueue:
    """Asks `squeue` on behalf of all processes that work for a resource on this host.

    The answer is kept in `path`, and is older than `interval` seconds only if SLURM did not answer.
    If `user` is given, SLURM is only asked for that user's jobs; if `uid` is, only those of that
    user are looked at, as others could give their jobs any comment. `cluster` is SLURM's name of
    the cluster that is asked.
    """

    def __init__(
        self,
        path: Path,
        transport: Transport,
        interval: float,
        *,
        user: str | None = None,
        uid: int | None = None,
        cluster: str | None = None,
    ) -> None:
        self._path = path
        only = () if user is None else (f"--user={user}",)
        self._command = (*_COMMAND, *only, *choosing(cluster))
        self._uid = uid
        self._transport = transport
        self.interval = interval

    async def latest(self) -> Snapshot | None:
        """The last answer, after asking again if it is time to; None if there is no answer yet."""
        with self._turn() as is_ours:
            if is_ours:
                with contextlib.suppress(TransportError, CommandError):
                    await self._ask()
        return await asyncio.to_thread(self._read)

    async def _ask(self) -> None:
        """Ask, and keep the answer; an answer that says nothing about jobs is not kept."""
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
        return parse(content["asked_at"], content["lines"], self._uid)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[bool]:
        """Whether it is time to ask, and no other process does. Who asks holds the lock meanwhile.

        The lock file's time is that of the last try, so that a failed try counts too.
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
            # The age is negative if the clock was set back.
            if size and 0 <= time.time() - lock.stat().st_mtime < self.interval:
                yield False
                return
            file.truncate(0)
            file.write("asked\n")
            file.flush()
            yield True


def choosing(cluster: str | None) -> Sequence[str]:
    """The option with which SLURM's commands are for one of several clusters."""
    return () if cluster is None else (f"--clusters={cluster}",)


async def describe_queue(
    transport: Transport,
    *,
    cluster: str | None = None,
    user: str | None = None,
    accounts: Sequence[str] | None = None,
) -> str:
    """The table that `squeue` prints for people: of all jobs, of one user's or of some accounts'.

    Raises:
        TransportError, CommandError: SLURM does not answer.
    """
    command = ["squeue", *choosing(cluster)]
    if user is not None:
        command.append(f"--user={user}")
    if accounts is not None:
        command.append(f"--account={','.join(accounts)}")
    answer = (await transport.run(command, seconds=_ASK_SECONDS)).check()
    return answer.stdout.decode(errors="replace")


def parse(asked_at: float, lines: str, uid: int | None = None) -> Snapshot | None:
    """Read an answer of `squeue` to `_COMMAND`; None if the text has no part of such an answer.

    Other text around the answer is ignored, and so are lines that cannot be read, and those about
    other jobs: not ours, no arrays, or of others than `uid`. If an element is listed twice, as in a
    federation, a living one counts.
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
        if uid not in (None, int(found["uid"])):
            continue
        element = found["token"], int(found["index"])
        how = ElementState(found["state"], printable(found["reason"]))
        if element not in elements or how.is_alive:
            elements[element] = how
            arrays[found["token"]] = int(found["array"])
    if not begun and not elements:
        return None
    return Snapshot(asked_at, elements, arrays, not_read)
