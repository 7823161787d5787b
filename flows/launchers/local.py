"""The launcher that runs batches on this machine."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from flows import unit_runner
from flows.launchers.base import (
    BATCH_FILE,
    RESULTS_FILE,
    Batch,
    BatchEnd,
    ForeignBatchError,
    OnResults,
    ResultsReader,
    UnitResult,
    naming,
    require_not_lost,
    write_batch,
    write_whole,
)
from flows.launchers.transport import environment_of_programs
from flows.left_files import open_left, read_end, read_left
from flows.sentences import words_of

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25
_LONGEST_SILENCE = 1.0
_STDERR_TAIL = 4096
_SIGNED_WITHIN = 0.5
_SIGNATURE = 200  # bytes that a signed lock has at most
_PROBE = bytes(64 * 1024)
_HOST = os.uname().nodename
_PROGRAM = "unit_runner.py"


class LocalLauncher:
    """Runs a batch by a unit runner in a session of its own, which outlives this process.

    `python` executes the unit runner, which is copied into the folder that the batch folders are
    in. A runner that lives on for `stop_timeout` seconds after it was told to stop is killed.
    """

    def __init__(self, python: str = sys.executable, stop_timeout: float = 30.0) -> None:
        self.python = python
        self.stop_timeout = stop_timeout
        self._runners: dict[Path, _Runner] = {}

    async def run(self, batch: Batch, on_results: OnResults) -> BatchEnd:
        """See `Launcher.run`."""
        folder = batch.folder.absolute()
        runner = self._runners[folder] = _Runner(folder)
        results = _Results(batch, on_results)
        try:
            if not runner.is_alive():
                await asyncio.to_thread(_prepare, batch)
                await results.hand_over()
                if results.missing() and not runner.is_stopped:
                    _check_host(results.reader)
                    await runner.start(self.python)
            await _follow(runner, results)
        except asyncio.CancelledError:
            await self.stop(folder)
            await results.hand_over()
            raise
        finally:
            del self._runners[folder]
        if not results.reader.ended:  # it was killed, or stopped before it began
            await asyncio.to_thread(unit_runner.kill_processes_of, str(folder))
        return BatchEnd(
            missing=results.missing(),
            stopped=results.reader.stopped or runner.is_stopped,
            stderr=await asyncio.to_thread(runner.last_words, results.reader.ended),
        )

    def how(self, batch: Batch) -> str:
        """See `Launcher.how`."""
        return f"{min(batch.max_parallel, len(batch.units))} at once, on {_HOST}"

    def memory_of(self, batch: Batch) -> int | None:
        """See `Launcher.memory_of`: units take what they need."""
        return None

    async def stop(self, folder: Path) -> None:
        """See `Launcher.stop`."""
        folder = folder.absolute()
        runner = self._runners.get(folder) or _Runner(folder)
        if folder in self._runners or runner.is_alive():
            runner.tell_to_stop()
        if folder not in self._runners and not (folder / "lock").exists():
            # It never ran, or its folder was removed while it does.
            await asyncio.to_thread(unit_runner.kill_runners_of, str(folder))
            return
        await runner.send(signal.SIGTERM)
        if await _ends_within(self.stop_timeout, runner):
            return
        await runner.send(signal.SIGKILL)  # its guard settles its units, and ends
        if not await _ends_within(self.stop_timeout, runner):
            await runner.send(signal.SIGKILL)
        await asyncio.to_thread(unit_runner.kill_processes_of, str(folder))

    async def close(self) -> None:
        """See `Launcher.close`: there are none."""


def _prepare(batch: Batch) -> None:
    """Write a batch that is to be run, unless what it did before was lost; see `write_batch`."""
    is_new = not (batch.folder / BATCH_FILE).exists()
    write_batch(batch)
    require_not_lost(batch, batch.folder / RESULTS_FILE)
    if is_new:  # its folder may have been removed while a runner worked on it, which went on
        unit_runner.kill_runners_of(str(batch.folder.absolute()))


async def _follow(runner: "_Runner", results: "_Results") -> None:
    """Hand over results until the runner has ended, as promptly as the batch is young."""
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
        file = open_left(folder / "lock", below=folder)
    except OSError:  # no runner holds what is not there, or is no file
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _check_host(reader: ResultsReader) -> None:
    """Raise ForeignBatchError if the last runner may still work on the batch, on another host."""
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
        # Pending are, at first, those whose handing over was cancelled half-way.
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
    """The unit runner of a batch: started here, or found by the lock that it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._must_not_start = False

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop, by whomever."""
        return self._must_not_start or (self.folder / unit_runner.STOP_FILE).exists()

    def tell_to_stop(self) -> None:
        """Leave word that the next SIGTERM stops the batch; if it does not run, it never will."""
        self._must_not_start = True
        # If it cannot be written, as on a full disk, the units are to be ended all the same.
        path = self.folder / unit_runner.STOP_FILE
        with contextlib.suppress(OSError), open_left(path, "ab", below=self.folder):
            return

    async def start(self, python: str) -> None:
        """Start it, or, if this is cancelled, leave it to `send` to wait until it is started."""
        self._starting = asyncio.create_task(asyncio.to_thread(self._start, python))
        await asyncio.shield(self._starting)

    def _start(self, python: str) -> None:
        program = _copy_of_unit_runner(self.folder.parent)
        if self._must_not_start:
            return
        with self._emptied("stdout") as stdout, self._emptied("stderr") as stderr:
            self._process = subprocess.Popen(
                # Isolated and without site-packages: starts faster, and nothing gets in its way.
                [python, "-I", "-S", str(program), str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment_of_programs(),
                start_new_session=True,
            )

    def _emptied(self, name: str) -> BinaryIO:
        path = self.folder / name
        path.unlink(missing_ok=True)
        return path.open("xb")

    def is_alive(self) -> bool:
        """Whether the runner or its guard lives: a killed guard leaves its runner running."""
        started = self._process is not None and self._process.poll() is None
        return started or is_running(self.folder)

    async def send(self, number: int) -> None:
        """Send it a signal, if it lives and does so on this host."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        holder = await self._holder()
        if holder is not None:
            pid, host = holder
            if host == _HOST and unit_runner.is_runner_of(pid, str(self.folder)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        elif self._process is not None:
            self._process.send_signal(number)

    def last_words(self, came_to_its_end: bool) -> str:
        """The last 4 KiB of what it said; how it ended, if it did not come to its end silently."""
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
        """What prevents writing into its folder, if anything does."""
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
        """The process that holds the lock, and its host; it signs a moment after it took it."""
        deadline = time.monotonic() + _SIGNED_WITHIN
        while is_running(self.folder) and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                content = read_end(self.folder / "lock", _SIGNATURE, below=self.folder)
                if words := content.decode().split():
                    return int(words[0]), words[1] if len(words) > 1 else _HOST  # an older version
            await asyncio.sleep(_SHORTEST_PAUSE)
        return None


def _copy_of_unit_runner(folder: Path) -> Path:
    """The copy in `folder`, renewed if an older version made it; who runs it is not disturbed."""
    copy = folder / _PROGRAM
    own = Path(unit_runner.__file__).read_bytes()
    with contextlib.suppress(OSError):  # it is not there, or something else is
        if read_left(copy, len(own), below=folder) == own:
            return copy
    write_whole(copy, own)
    return copy
