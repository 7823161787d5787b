"""The launcher that runs batches on this machine."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from flows.launchers.base import BatchEnd, ForeignBatchError, OnResults
from flows.process.accounts import Account
from flows.process.transport import (
    CommandError,
    LocalTransport,
    TransportError,
    environment_of_programs,
)
from flows.programs import unit_runner, warm_process
from flows.reports.sentences import words_of
from flows.units.batch import BATCH_FILE, Batch, require_not_lost, write_batch
from flows.units.files import ENTERED, FILLED, PASSED, READ, WRITTEN, naming, write_whole
from flows.units.left_files import open_left, read_end, read_left
from flows.units.results import RESULTS_FILE, ResultsReader, UnitResult

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25
_LONGEST_SILENCE = 1.0
_STDERR_TAIL = 4096
_SIGNED_WITHIN = 0.5
_SIGNATURE = 200  # bytes that a signed lock has at most
_PROBE = bytes(64 * 1024)
_HOST = os.uname().nodename
_PROGRAM = "unit_runner.py"
_TEXT = Path(unit_runner.__file__).read_bytes()
_TEXTS = {_PROGRAM: _TEXT, unit_runner.WARM_PROGRAM: Path(warm_process.__file__).read_bytes()}
LOCK_FILE = "lock"


class LocalLauncher:
    """Runs each batch by a unit runner in its own session, which outlives this process.

    `python` executes the unit runner, which is copied into the parent of the batch folders. A
    runner that still lives `stop_timeout` seconds after it was told to stop is killed.

    With an `account`, the runner and its units run as that OS user, by one call of sudo per batch.
    The account owns what units write; in the rest of a job's folder it can only read files or pass
    through folders.
    """

    def __init__(
        self,
        python: str = sys.executable,
        stop_timeout: float = 30.0,
        *,
        account: Account | None = None,
    ) -> None:
        self.stop_timeout = stop_timeout
        self._runs_as = _RunsAs(python, account)
        self._runners: dict[Path, _Runner] = {}

    async def run(self, batch: Batch, on_results: OnResults) -> BatchEnd:
        """See `Launcher.run`."""
        batch = self._runs_as.adapted(batch)
        folder = batch.folder.absolute()
        runner = self._runners[folder] = _Runner(folder, self._runs_as)
        results = _Results(batch, on_results)
        try:
            if not runner.is_alive():
                if await asyncio.to_thread(_prepare, batch):
                    await self._runs_as.kill_left_runners_of(folder)
                await results.hand_over()
                if results.missing() and not runner.is_stopped:
                    _check_host(results.reader)
                    await asyncio.to_thread(self._runs_as.share, batch)
                    await runner.start()
            await _follow(runner, results)
        except asyncio.CancelledError:
            await self.stop(folder)
            await results.hand_over()
            raise
        finally:
            del self._runners[folder]
        if not results.reader.ended:  # it was killed, or stopped before it began
            await self._runs_as.kill_units_of(folder)
        return BatchEnd(
            missing=results.missing(),
            stopped=results.reader.stopped or runner.is_stopped,
            stderr=await asyncio.to_thread(runner.last_words, results.reader.ended),
            imports=(results.reader.imports,) if results.reader.imports else (),
        )

    def describe(self, batch: Batch) -> str:
        """See `Launcher.describe`."""
        return f"{min(batch.max_parallel, len(batch.units))} at once, on {_HOST}"

    def memory_of(self, batch: Batch) -> int | None:
        """See `Launcher.memory_of`. Units here take what memory they need, so None is returned."""
        return None

    async def stop(self, folder: Path) -> None:
        """See `Launcher.stop`."""
        folder = folder.absolute()
        runner = self._runners.get(folder) or _Runner(folder, self._runs_as)
        if folder in self._runners or runner.is_alive():
            runner.tell_to_stop()
        if folder not in self._runners and not (folder / LOCK_FILE).exists():
            # It never ran, or its folder was removed while it was running.
            await self._runs_as.kill_left_runners_of(folder)
            return
        await runner.send(signal.SIGTERM)
        if await _ends_within(self.stop_timeout, runner):
            return
        await runner.send(signal.SIGKILL)  # its guard settles its units, and ends
        if not await _ends_within(self.stop_timeout, runner):
            await runner.send(signal.SIGKILL)
        await self._runs_as.kill_units_of(folder)

    async def close(self) -> None:
        """See `Launcher.close`. There are no connections."""


def _prepare(batch: Batch) -> bool:
    """Write a batch before it runs, unless what it did earlier was lost; errors as `write_batch`.

    Returns whether the batch is new. Even then a runner may work on it: one that went on after the
    folder had been removed.
    """
    is_new = not (batch.folder / BATCH_FILE).exists()
    write_batch(batch)
    require_not_lost(batch, batch.folder / RESULTS_FILE)
    return is_new


async def _follow(runner: "_Runner", results: "_Results") -> None:
    """Hand over results until the runner has ended, at first with shorter pauses."""
    begun = time.monotonic()
    while True:
        alive = runner.is_alive()  # asked first, so that the last results are read after its end
        await results.hand_over()
        if not alive:
            return
        age = 0.0 if results.reader.ended else time.monotonic() - begun
        await asyncio.sleep(min(max(age / 20, _SHORTEST_PAUSE), _LONGEST_PAUSE))


async def _ends_within(seconds: float, runner: "_Runner") -> bool:
    deadline = time.monotonic() + seconds
    while runner.is_alive():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def is_running(folder: Path) -> bool:
    """Whether a unit runner works on the batch in this folder, whoever started it."""
    try:
        file = open_left(folder / LOCK_FILE, below=folder)
    except OSError:  # no runner holds what is not there, or is no file
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _check_host(reader: ResultsReader) -> None:
    """Raise ForeignBatchError if the last runner may still work on the batch on another host."""
    host = reader.runs_on
    if host not in (None, _HOST):
        folder = reader.path.parent
        raise ForeignBatchError(
            f"The batch {folder} was begun on the host {host!r} and has not come to its end; this "
            f"is the host {_HOST!r}, which cannot see whether its units still run there. Let the "
            f"worker of {host!r} go on with it: a local resource is for workers of one host. If "
            "there is no such host any more, run here: "
            f"python {folder.parent / _PROGRAM} {folder}"
        )


class _Results:
    """Hands over the results of a batch, each at least once."""

    def __init__(self, batch: Batch, on_results: OnResults) -> None:
        self.batch = batch
        self.on_results = on_results
        self.reader = ResultsReader(
            batch.folder / RESULTS_FILE, [unit.index for unit in batch.units]
        )
        self._seen: set[int] = set()
        self._pending: list[UnitResult] = []
        self._called_at = time.monotonic()

    async def hand_over(self) -> None:
        # At first, `_pending` has the results whose last handing over was cancelled half-way.
        while results := self._pending or self.reader.read():
            self._pending = results
            await self.on_results(results)
            self._pending = []
            self._seen.update(result.index for result in results)
            self._called_at = time.monotonic()
        if time.monotonic() - self._called_at >= _LONGEST_SILENCE:
            self._called_at = time.monotonic()
            await self.on_results([])

    def missing(self) -> tuple[int, ...]:
        return tuple(unit.index for unit in self.batch.units if unit.index not in self._seen)


class _Runner:
    """The unit runner of a batch: started by this object, or found by the lock that it holds."""

    def __init__(self, folder: Path, runs_as: "_RunsAs") -> None:
        self.folder = folder
        self._runs_as = runs_as
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._must_not_start = False

    @property
    def is_stopped(self) -> bool:
        """Whether anybody told the runner to stop."""
        return self._must_not_start or (self.folder / unit_runner.STOP_FILE).exists()

    def tell_to_stop(self) -> None:
        """Make the next SIGTERM stop the batch; if no runner runs yet, prevent its start."""
        self._must_not_start = True
        # If the file cannot be written, as on a full disk, the units must end all the same.
        path = self.folder / unit_runner.STOP_FILE
        with contextlib.suppress(OSError), open_left(path, "ab", below=self.folder):
            return

    async def start(self) -> None:
        """Start the runner. If this is cancelled, the start goes on, and `send` waits for it."""
        self._starting = asyncio.create_task(asyncio.to_thread(self._start))
        await asyncio.shield(self._starting)

    def _start(self) -> None:
        program = self._runs_as.copy_of_programs(self.folder.parent)
        if self._must_not_start:
            return
        with self._emptied("stdout") as stdout, self._emptied("stderr") as stderr:
            self._process = subprocess.Popen(
                self._runs_as.command(str(program), str(self.folder)),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment_of_programs(),
                **self._runs_as.options(),
                start_new_session=True,
            )

    def _emptied(self, name: str) -> BinaryIO:
        path = self.folder / name
        path.unlink(missing_ok=True)
        return path.open("xb")

    def is_alive(self) -> bool:
        """Whether the runner or its guard lives: a runner outlives a guard that was killed."""
        started = self._process is not None and self._process.poll() is None
        return started or is_running(self.folder)

    async def send(self, number: int) -> None:
        """Send a signal to the runner, if it lives on this host."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        holder = await self._holder()
        if holder is not None:
            pid, host = holder
            if host == _HOST and unit_runner.is_runner_of(pid, str(self.folder)):
                await self._runs_as.send(pid, number)
        elif self._process is not None and self._process.poll() is None:
            await self._runs_as.send_first(self._process.pid, number)

    def last_words(self, came_to_its_end: bool) -> str:
        """The last 4 KiB that the runner said. If it said nothing, how it ended.

        Empty if it said nothing and came to its end or was told to stop.
        """
        with contextlib.suppress(OSError):
            words = read_end(self.folder / "stderr", _STDERR_TAIL, below=self.folder)
            if words:
                return words.decode(errors="replace")
        if came_to_its_end or self.is_stopped:
            return ""
        return f"The unit runner {self._how_it_ended()}. {self._why_it_is_silent()}".strip()

    def _how_it_ended(self) -> str:
        code = None if self._process is None else self._process.poll()
        if code is None or code == unit_runner.EXIT_LOCKED:
            return "ended early, perhaps it was killed"
        if code < 0:
            return f"was killed: {signal.strsignal(-code)} ({-code})"
        return f"ended early with exit code {code}"

    def _why_it_is_silent(self) -> str:
        """What prevents the runner from writing into its folder; empty if nothing does."""
        probe = self.folder / "probe"
        try:
            with naming(probe), self._emptied(probe.name) as file:
                file.write(_PROBE)
        except OSError as error:
            return f"It cannot write files: {words_of(error)}"
        finally:
            probe.unlink(missing_ok=True)
        return ""

    async def _holder(self) -> tuple[int, str] | None:
        """The process id and host of the lock's holder.

        The holder writes both into the lock file shortly after it took the lock, so this waits a
        moment.
        """
        deadline = time.monotonic() + _SIGNED_WITHIN
        while is_running(self.folder) and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                content = read_end(self.folder / LOCK_FILE, _SIGNATURE, below=self.folder)
                if words := content.decode().split():
                    return int(words[0]), words[1] if len(words) > 1 else _HOST  # an older version
            await asyncio.sleep(_SHORTEST_PAUSE)
        return None


def _put_own_logs_aside(batch: Batch) -> None:
    """Rename logs that this process wrote, so that the account can write logs of its own."""
    for unit in batch.units:
        log = batch.units_dir / f"{unit.name}.log"
        with contextlib.suppress(FileNotFoundError):
            if log.lstat().st_uid == os.geteuid():
                log.rename(log.with_name(f"{unit.name}.attempt-{batch.attempt - 1}.log"))


def _is_copy(path: Path, text: bytes) -> bool:
    """Whether a file has this text, that is, is of this version."""
    with contextlib.suppress(OSError):  # it is not there, or something else is
        return read_left(path, len(text), below=path.parent) == text
    return False


class _RunsAs:
    """Who runs the units: the user of this process or, by sudo, an account."""

    def __init__(self, python: str, account: Account | None) -> None:
        self.python = python
        self.account = account
        self._transport = LocalTransport(account.name, python) if account is not None else None

    def command(self, *arguments: str) -> list[str]:
        """The command that runs Python with these arguments."""
        prefix = self._transport.prefix() if self._transport is not None else []
        # Isolated and without site-packages: Python starts faster, and loads nothing unexpected.
        return [*prefix, self.python, "-I", "-S", *arguments]

    def options(self) -> dict[str, Any]:
        """Options for starting the command.

        An account may enter few folders, so it starts in `/`; the files that it writes must be
        readable for others.
        """
        return {} if self.account is None else {"cwd": "/", "umask": 0o022}

    def adapted(self, batch: Batch) -> Batch:
        """The batch with a working folder in which its units may write."""
        if self.account is None or batch.cwd is not None:
            return batch
        return replace(batch, cwd=batch.units_dir)

    def share(self, batch: Batch) -> None:
        """Give the account the access that it needs for a batch, and no more.

        What this process writes itself is not in folders that the account can change.
        """
        if self.account is None:
            return
        folder, units_dir = batch.folder.absolute(), batch.units_dir.absolute()
        self.account.share(units_dir.parent, PASSED)
        for each in (folder, *folder.parents):
            if each == units_dir:
                break
            self.account.share(each, ENTERED)
        self.account.share(folder / BATCH_FILE, READ)
        for name in (LOCK_FILE, RESULTS_FILE):
            (folder / name).touch()
            self.account.share(folder / name, WRITTEN)
        _put_own_logs_aside(batch)
        self.account.share(units_dir, FILLED)

    def copy_of_programs(self, folder: Path) -> Path:
        """Copy the unit runner, and what it starts, to a folder. Returns the path of the runner.

        A copy of another version is replaced as a whole, so a process that uses it is not
        disturbed.
        """
        for name, text in _TEXTS.items():
            copy = folder / name
            if not _is_copy(copy, text):
                write_whole(copy, text)
            if self.account is not None:
                self.account.share(copy, READ)
        return folder / _PROGRAM

    async def send(self, pid: int, number: int) -> None:
        """Send a signal to a process, if it lives; with an account, as that OS user.

        (The process id may come from a file that a unit wrote, so no other user's process may get
        the signal.)
        """
        if self._transport is not None:
            text = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))"
            command = (self.python, "-I", "-S", "-c", text, str(pid), str(number))
            with contextlib.suppress(TransportError, CommandError):
                await self._transport.run(command)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    async def send_first(self, pid: int, number: int) -> None:
        """Send a signal to a runner that was just started.

        With an account, `pid` is that of sudo, and its whole process group gets the signal.
        """
        await self.send(pid if self._transport is None else -pid, number)

    async def kill_left_runners_of(self, folder: Path) -> None:
        """Kill runners, and their units, that still work on a batch whose folder is new.

        Most batches have no such runner.
        """
        if self._transport is None:
            await asyncio.to_thread(unit_runner.kill_runners_of, str(folder))
        elif await asyncio.to_thread(unit_runner.runners_of, str(folder)):
            await self._kill_as_account(folder)

    async def kill_units_of(self, folder: Path) -> None:
        """Kill the units of a batch whose runner is gone, or did not react."""
        if self._transport is None:
            await asyncio.to_thread(unit_runner.kill_processes_of, str(folder))
        else:
            await self._kill_as_account(folder)

    async def _kill_as_account(self, folder: Path) -> None:
        assert self._transport is not None
        command = (self.python, "-I", "-S", "-c", _TEXT.decode(), "--kill", str(folder))
        with contextlib.suppress(TransportError, CommandError):
            await self._transport.run(command)
