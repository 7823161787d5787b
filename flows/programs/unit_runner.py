"""Execute the units of a batch: `python unit_runner.py [--wait | --kill] BATCH_DIR`.

A unit is one execution of a task's command. This program is copied to where units run, so it is one
file, needs only the standard library, and runs with Python 3.8 and newer.

Input: `BATCH_DIR/batch.json`

    {"format": 2, "command": ["python", "task.py"], "max_parallel": 4, "args": {...},
     "units": [{"index": 0, "name": "000000", "args": {...}}], "units_dir": "/absolute/path",
     "cwd": null (BATCH_DIR/work), "env": null, "grace_seconds": 5, "attempt": 1, "warm": false}

For every unit, `max_parallel` at once, `<command> --args-json A --out-json B` runs as a separate
process group. In `units_dir` the unit has `<name>.args.json` (A: `args` overridden by the unit's
own), `<name>.log` (its stdout and stderr) and, if it succeeded and wrote one, `<name>.out.json`.
When a unit ends, all that it leaves running in its process group is killed. In attempt n > 1, the
log of the attempt before is kept as `<name>.attempt-<n-1>.log`. Units may do anything to their
files and folders: whatever is in the place of a needed file is removed, or renamed to
`<file>.<time>.aside`; a working folder that a unit removed is made again. If the results file was
removed or replaced, nobody could see what units do, so the runner ends, and its units with it.

With `warm`, the imports of a task are made once, by a *warm process*, from which units are forked:
see `warm_process.py`, which lies beside this file. The units are children of the runner all the
same. Where that is not possible, units are started as ever, *cold*. A warm unit that is ended by a
signal runs once more, cold, and its log says so: unless it was told to end, or killed for memory.

Output: `BATCH_DIR/results.jsonl`, a line for each finished unit, in the order in which they finish

    {"index", "exit_code" or null, "signal" or null, "error" or null, "started_at", "ended_at",
     "max_rss_kb", "cpu_seconds", "host", "has_output", "has_warnings"}

Each runner that works on the batch first writes a line `{"format": 2, "host", "pid", "started_at",
"at_once"}`, with the number of units that it may run at once; in a SLURM job, this line has
`"slurm": {"job", "cpus", "mem_mb", "gpus", "since"}`: what SLURM has reserved for it, each null
(the GPUs: 0) where it does not tell. If the runner comes to its end, it writes a last line
`{"end": true, "ended_at", "stopped"}`; if the batch asked for it, this has `"warm": {"seconds",
"units", "why_cold"}`: how long the imports took, how many units were forked after them, and why not
all. A unit that has a line is not run again: a runner that is started on a begun batch continues
it. A line `{"killed": [indexes], "at"}` names units that were ended because their runner was: they
have no result and run again. Format 1, which can be read too, has neither this line nor attempts.

Peak memory and CPU time include the unit's descendants for which it waited. Peak memory is never
less than what this program itself needs, because the kernel begins to count before it loads the
unit's program.

The program is two processes: the runner, and its parent, the guard. If the runner is killed, the
guard becomes the parent of its units, writes results for those that have ended by themselves, and
kills the others. If the guard is killed, the runner carries on. There is no guard if Linux, ctypes
or the number of a system call is missing; then a unit that ends just when the runner is killed has
no result.

While one of the two lives, it holds a lock (`flock`) on `BATCH_DIR/lock`, which contains the
runner's process id and host. With `--wait`, a second runner waits until the lock is free: a
scheduler may start a job again whose processes still live. With `--kill` nothing is executed: the
runners on a batch are killed, with their units.

SIGTERM or SIGINT, to either process, ends the runner early: its units get SIGTERM, and SIGKILL
`grace_seconds` later. If the file `BATCH_DIR/stop` exists, the batch is stopped: the results of its
units have the error "stopped". Otherwise the runner is interrupted, as by a shutdown: units that
then exit with code 0 have a result, the others are named as killed in its last line. A shutdown, or
a scheduler that kills a job, may reach a unit before the runner. So the result of a unit that was
ended by SIGTERM or SIGKILL waits for a second; if the runner is ended meanwhile, the unit counts as
interrupted too.

SIGUSR1 interrupts as well, and says that the time of this runner is up: its last line then has
`"time_was_up": true`.

Exit codes: 0 all units ended, 2 the batch cannot be read, 3 another runner works on it, 74 a file
could not be written, 75 interrupted, 143 stopped, 128 + n the runner was killed by signal n.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import mmap
import os
import re
import signal
import socket
import stat
import sys
import time
from collections import deque
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

FORMAT = 2
READABLE_FORMATS = (1, 2)
EXIT_UNUSABLE, EXIT_LOCKED, EXIT_NOT_WRITTEN, EXIT_INTERRUPTED, EXIT_STOPPED = 2, 3, 74, 75, 143
NOT_STARTABLE, NOT_FOUND = 126, 127

STOP_FILE = "stop"
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SIGNALS = (signal.SIGCHLD, signal.SIGALRM, *ENDING)
BATCH_VARIABLE = "FRACTAL_UNIT_BATCH"
STOPPED = "stopped"
ENDED_WITH_ITS_RUNNER = "The unit was killed, because its runner was."
NOT_REGULAR = "it is no regular file"
WARNING = b"warning"  # in upper or lower case, as in Fractal
READ_AT_ONCE = 1024 * 1024
LOCK_SECONDS = 0.2  # whoever tests whether the lock is held, holds it for a moment
GONE_SECONDS = 5.0
RUNNER_MAY_FOLLOW_SECONDS = 1.0
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these two
WARM_PROGRAM = "warm_process.py"
NOT_PYTHON = "the command is not `python FILE.py`, with the whole path of a file"
SWITCHES = re.compile("-[BEIOPSsu]+")
READY = b"ready"
IMPORT_SECONDS = 120.0
FORK_SECONDS = 10.0
LONGEST_SAYING = 1024 * 1024  # of imports
LONGEST_REASON = 300


def main(arguments: list[str]) -> int:
    waits, kills = arguments[:1] == ["--wait"], arguments[:1] == ["--kill"]
    if len(arguments) != 1 + waits + kills:
        return complain(EXIT_UNUSABLE, "usage: python unit_runner.py [--wait | --kill] BATCH_DIR")
    folder = os.path.abspath(arguments[-1])
    if kills:
        kill_runners_of(folder)
        return 0
    # Signals are received in one place, by sigwait, so no signal interrupts a call or gets lost.
    # SIGCHLD needs a handler: otherwise it may be dropped or, if the parent ignored it, never be
    # sent.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        lock = Lock(os.path.join(folder, "lock"), math.inf if waits else LOCK_SECONDS)
        batch = read_batch(folder)
        results = ResultsFile(os.path.join(folder, "results.jsonl"))
        children = Children()
        board = Board(max(1, min(batch["max_parallel"], len(batch["units"]))))
        if children.adopt_orphans() and (process := os.fork()):
            return Guard(process, lock, folder, batch, children, board).run()
        lock.sign()
        runner = Runner(folder, batch, results, children, board)
    except BlockingIOError:
        return complain(EXIT_LOCKED, f"another unit runner works on {folder}")
    except (OSError, ValueError) as error:
        return complain(EXIT_UNUSABLE, f"cannot run the batch: {error}")
    try:
        return runner.run()
    except OSError as error:
        return complain(
            EXIT_NOT_WRITTEN,
            f"ended early, units without a line in {results.path} have no result: {error}",
        )


def complain(exit_code: int, message: str) -> int:
    with contextlib.suppress(OSError):  # on a full disk the exit code has to do
        os.write(2, f"unit_runner: {message}\n".encode())
    return exit_code


class Lock:
    """The lock on a batch, held until this process and all processes forked from it have ended."""

    def __init__(self, path: str, seconds: float) -> None:
        """Take the lock. Raises BlockingIOError if another process holds it for `seconds`."""
        self.path = path
        self.file = open_regular(path, os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOCK_SECONDS / 20)
        self.sign()

    def sign(self) -> None:
        """Write this process's id and host into the lock file, so that signals go to it.

        The text always has the same length, so a reader never sees it cut.
        """
        name = f"{os.getpid()} {os.uname().nodename}".ljust(99) + "\n"
        os.lseek(self.file, 0, os.SEEK_SET)
        write(self.file, self.path, name)
        os.ftruncate(self.file, len(name))


def read_batch(folder: str) -> dict[str, Any]:
    """The content of `batch.json`. Raises ValueError if it is not valid."""
    path = os.path.join(folder, "batch.json")
    try:
        with open(open_regular(path, os.O_RDONLY), encoding="utf-8") as file:
            batch: dict[str, Any] = dict(json.load(file))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    check_format(path, batch.get("format"))
    missing = {"command", "max_parallel", "args", "units", "units_dir"} - set(batch)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
    if not batch["command"] or batch["max_parallel"] < 1:
        raise ValueError(f"{path} needs a command, and a max_parallel of at least 1")
    return batch


def check_format(path: str, found: object) -> None:
    """Raise ValueError if a file has a format that this program does not read."""
    if found not in READABLE_FORMATS:
        newer = isinstance(found, int) and found > FORMAT
        raise ValueError(
            f"{path} has format {found!r}, supported are {READABLE_FORMATS[0]} to {FORMAT}"
            + ("; it was written by a newer version: upgrade" if newer else "")
        )


class Ended(NamedTuple):
    """How a process ended, and which resources it used."""

    process: int
    exit_code: int | None
    signal: int | None = None
    max_rss_kb: int = 0
    cpu_seconds: float = 0.0

    def perhaps_with_all(self) -> bool:
        """Whether a signal ended the process, or the child of a shell, that may be for all."""
        number = self.signal or (self.exit_code or 0) - 128
        return number in (signal.SIGTERM, signal.SIGKILL)


class Children:
    """Looks at children that have ended; on Linux, without reaping them.

    Until a child is reaped, it can be asked again how it ended: by the guard, if this process is
    killed. Python's own `waitid` does not reap either, but does not return the resources that the
    child used.
    """

    WAITID = {"x86_64": 247, "aarch64": 95}
    P_ALL, P_PID = 0, 1
    BECOME_SUBREAPER = 36
    CLD_EXITED = 1

    def __init__(self) -> None:
        self.libc: Any = None
        number = self.WAITID.get(os.uname().machine)
        if not sys.platform.startswith("linux") or number is None or sys.maxsize < 2**32:
            return
        try:
            import ctypes
        except ImportError:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        long, pointer = ctypes.c_long, ctypes.c_void_p
        libc.syscall.argtypes = (long, long, long, pointer, long, pointer)
        libc.syscall.restype = long
        libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
        self.number, self.get_errno = number, ctypes.get_errno
        self.info, self.usage = (ctypes.c_int * 32)(), (long * 18)()
        self.libc = libc
        try:
            self.look()
        except OSError:  # the call is forbidden here
            self.libc = None

    def adopt_orphans(self) -> bool:
        """Become the parent of descendants whose parent dies. Returns whether this is possible."""
        if self.libc is None:
            return False
        return bool(self.libc.prctl(self.BECOME_SUBREAPER, 1, 0, 0, 0) == 0)

    def look(self, process: int | None = None, wait: bool = False) -> Ended | None:
        """How a child ended: this one, or any if `process` is None.

        None if no such child has ended; with `wait`, wait for its end.
        """
        if self.libc is None:
            return self._reap_one()
        info, usage = self.info, self.usage
        kind = self.P_ALL if process is None else self.P_PID
        options = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
        if self.libc.syscall(self.number, kind, process or 0, info, options, usage) != 0:
            number = self.get_errno()
            if number == errno.ECHILD:
                return None
            raise OSError(number, os.strerror(number))
        if info[4] == 0:
            return None
        exited, status = info[2] == self.CLD_EXITED, info[6]
        return Ended(
            process=info[4],
            exit_code=status if exited else None,
            signal=None if exited else status,
            max_rss_kb=usage[4],
            cpu_seconds=usage[0] + usage[2] + (usage[1] + usage[3]) / 1e6,
        )

    def _reap_one(self) -> Ended | None:
        try:
            process, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if process == 0:
            return None
        return Ended(
            process=process,
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            # Linux counts in KiB, macOS in bytes
            max_rss_kb=usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1),
            cpu_seconds=usage.ru_utime + usage.ru_stime,
        )

    def include(self, process: int) -> bool:
        """Whether a process is a child of this one, which it is until it is reaped."""
        try:
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def reap(self, process: int) -> None:
        """Reap a child whose end was read."""
        if self.libc is not None:
            os.waitpid(process, 0)


class Unit:
    """A unit that is being executed. `told` says whether it was told to end, and why."""

    NOT_TOLD, STOPPED, INTERRUPTED = 0, 1, 2

    def __init__(self, index: int, path: str, content: dict[str, Any] | None = None) -> None:
        self.index = index
        self.path = path
        self.content = content
        self.log_path = path + ".log"
        self.args_path = path + ".args.json"
        self.out_path = path + ".out.json"
        self.partial_path = path + ".out.json.partial"
        self.options = ["--args-json", self.args_path, "--out-json", self.partial_path]
        self.told = self.NOT_TOLD
        self.is_warm = False
        self.started_at = time.time_ns()
        self.began = since_boot()
        self.ended_at = 0.0
        self.slot = 0
        self.log = -1

    def now(self) -> float:
        """Seconds since the epoch, as if the clock had not been set since the unit started."""
        return (self.started_at + since_boot() - self.began) / 1e9

    def prepare(self, args: dict[str, Any], attempt: int, *, goes_on: bool) -> None:
        """Write the arguments, begin the log, and remove what an interrupted execution left.

        If the unit `goes_on`, it was executed in this attempt already: its log stays.
        """
        if attempt > 1 and not goes_on:
            kept = f"{self.path}.attempt-{attempt - 1}.log"
            if os.path.lexists(self.log_path) and not os.path.lexists(kept):
                os.rename(self.log_path, kept)
        left = (self.out_path, self.partial_path, self.args_path)
        for path in left if goes_on else (self.log_path, *left):
            remove(path)
        self.open_log()
        file = open_regular(self.args_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        write(file, self.args_path, json.dumps(args, indent=2))
        os.close(file)

    def open_log(self) -> None:
        self.log = open_regular(self.log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def runs_again(self, ended: Ended) -> bool:
        """Whether the unit runs once more, because it was warm and died of a signal.

        SIGTERM and SIGINT are no way to die, but to be told to end.
        """
        died = ended.signal not in (None, signal.SIGTERM, signal.SIGINT)
        return self.is_warm and died and not self.told

    def log_last_line(self, sentence: str) -> None:
        """Add a last line to the log, unless a runner that was killed has added it already."""
        size = os.fstat(self.log).st_size
        line = f"{sentence}\n"
        if os.pread(self.log, len(line), max(0, size - len(line))) == line.encode():
            return
        begin = "\n" if size and os.pread(self.log, 1, size - 1) != b"\n" else ""
        write(self.log, self.log_path, begin + line)

    def has_warnings(self) -> bool:
        position, read = 0, b""
        while piece := os.pread(self.log, READ_AT_ONCE, position):
            read = read[1 - len(WARNING) :] + piece.lower()  # it may begin in the last piece
            if WARNING in read:
                return True
            position += len(piece)
        return False

    def settle_output(self, succeeded: bool) -> bool:
        """Give the output its final name if the unit succeeded, else remove it.

        Returns whether there is an output.
        """
        if not succeeded:
            remove(self.partial_path)
            return False
        try:
            os.rename(self.partial_path, self.out_path)
        except FileNotFoundError:
            return os.path.lexists(self.out_path)  # a runner gave it this name, and was killed then
        except OSError:  # the unit has made a folder there, which is not an output either
            return True
        return True


class Board:
    """The units that are being executed, in memory that the runner shares with its guard.

    A slot is six numbers: the unit's process id, its index, what it was told, when it started,
    since the epoch and since boot, and whether it is warm. The process id is written last, in a
    single store, so a slot is complete at whatever moment the runner is killed. A warm process,
    whose id stands before all slots, writes those of its units. `file` is the memory as a file, if
    the system has such files.
    """

    SIZE = 6
    FREE, STARTING = 0, 1  # instead of a process; 1 is never a unit's
    WARM_PROCESS = 0

    def __init__(self, slots: int) -> None:
        self.file = os.memfd_create("board") if hasattr(os, "memfd_create") else -1
        size = 8 * (1 + slots * self.SIZE)
        if self.file >= 0:
            os.ftruncate(self.file, size)
        self.numbers = memoryview(mmap.mmap(self.file, size)).cast("q")
        self.free = list(range(1, len(self.numbers), self.SIZE))

    def announce(self, unit: Unit) -> None:
        """Note that a unit is about to be started."""
        numbers, slot = self.numbers, self.free.pop()
        numbers[slot + 1] = unit.index
        numbers[slot + 3] = unit.started_at
        numbers[slot + 4] = unit.began
        unit.slot = slot
        self.note(unit)
        numbers[slot] = self.STARTING

    def note(self, unit: Unit) -> None:
        """Note what a unit was told, and whether it is warm."""
        self.numbers[unit.slot + 2] = unit.told
        self.numbers[unit.slot + 5] = unit.is_warm

    def started(self, unit: Unit, process: int) -> None:
        self.numbers[unit.slot] = process

    def process_of(self, unit: Unit) -> int | None:
        """The process of a unit that a warm process has started; None if it has not."""
        process = self.numbers[unit.slot]
        return None if process == self.STARTING else process

    def remove(self, unit: Unit) -> None:
        self.numbers[unit.slot] = self.FREE
        self.free.append(unit.slot)

    def read(self) -> Iterator[list[int]]:
        """The numbers of each slot that is not free."""
        for slot in range(1, len(self.numbers), self.SIZE):
            if self.numbers[slot] != self.FREE:
                yield self.numbers[slot : slot + self.SIZE].tolist()


class Warm:
    """The warm process of a batch, as its runner sees it; or why there is none: `why_cold`."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.control: socket.socket | None = None
        self.command: list[str] = []
        self.file = 0
        self.said = -1  # the file for what imports write
        self.words = b""  # that they wrote
        self.begun = time.monotonic()
        self.seconds = 0.0
        self.units = 0
        self.is_importing = False
        self.why_cold: str | None = None

    def start(
        self,
        executable: str,
        command: list[str],
        file: int,
        environment: dict[str, str],
        no_input: int,
        room: int,
    ) -> None:
        """Start the process, with room for the command line of a unit.

        `file` is the place in the command where FILE.py is.

        Raises OSError if it cannot be started.
        """
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), WARM_PROGRAM)
        self.said = os.memfd_create("said by imports")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            for number in (theirs.fileno(), self.board.file):
                os.set_inheritable(number, True)
            numbers = f"{theirs.fileno()},{self.board.file},{os.getpid()}"
            try:
                process = os.posix_spawn(
                    executable,
                    [*command[:file], program, numbers, command[file], "." * room],
                    environment,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, no_input, 0),
                        (os.POSIX_SPAWN_DUP2, self.said, 1),
                        (os.POSIX_SPAWN_DUP2, self.said, 2),
                    ],
                    setpgroup=0,
                    setsigmask=(),
                    setsigdef=DEFAULT_SIGNALS,
                )
            finally:
                os.set_inheritable(self.board.file, False)
        self.board.numbers[Board.WARM_PROCESS] = process
        ours.setblocking(False)
        self.control, self.is_importing = ours, True
        self.command, self.file = command, file

    def listen(self) -> None:
        """Hear whether the process has imported, and whether units may be forked from it."""
        assert self.control is not None
        try:
            message = self.control.recv(READ_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        self.seconds = time.monotonic() - self.begun
        self.words = os.pread(self.said, LONGEST_SAYING, 0)
        self.is_importing = False
        if not message:
            last_line = self.words.decode(errors="replace").strip().rpartition("\n")[2]
            self.give_up(f"importing fails: {last_line}" if last_line else "importing fails")
        elif message != READY:
            self.give_up(message.decode(errors="replace"))
        elif len(self.words) == LONGEST_SAYING:
            self.give_up("importing writes too much into the log")

    def fork(self, unit: Unit, folder: str | None) -> int | None:
        """Have a unit forked. Returns its process id, which is on the board; None if it fails."""
        assert self.control is not None
        command = self.command + unit.options
        arguments = command[self.file + 1 :]
        request = {"slot": unit.slot, "command": command, "arguments": arguments, "folder": folder}
        log = (socket.SOL_SOCKET, socket.SCM_RIGHTS, unit.log.to_bytes(4, sys.byteorder))
        size = os.fstat(unit.log).st_size
        write_bytes(unit.log, unit.log_path, self.words)
        try:
            self.control.settimeout(FORK_SECONDS)
            self.control.sendmsg([json.dumps(request).encode()], [log])
            answer = self.control.recv(1)
        except OSError:  # it does not answer, or has ended
            answer = b""
        if not answer:
            self.give_up("the process that had imported does not answer")
        process = self.board.process_of(unit)
        if process is None:
            os.ftruncate(unit.log, size)
        else:
            self.units += 1
        return process

    def give_up(self, why: str) -> None:
        """Start no more units from here. What the process was about to start does not begin."""
        self.why_cold = why[:LONGEST_REASON]
        self.kill()
        self.end()

    def kill(self) -> None:
        process = self.board.numbers[Board.WARM_PROCESS]
        if process:
            send_to_group(process, signal.SIGKILL)

    def end(self) -> None:
        """Let the process end: no more units are to be forked."""
        self.is_importing = False
        if self.control is not None:
            self.control.close()
            self.control = None

    def report(self) -> dict[str, Any]:
        """What is said about it in the last line of results."""
        seconds = round(self.seconds, 3)
        return {"seconds": seconds, "units": self.units, "why_cold": self.why_cold}


class Runner:
    """Executes the units of a batch that have no result yet."""

    def __init__(
        self,
        folder: str,
        batch: dict[str, Any],
        results: ResultsFile,
        children: Children,
        board: Board,
    ) -> None:
        self.folder = folder
        self.results = results
        self.children = children
        self.board = board
        self.command: list[str] = batch["command"]
        self.common_args: dict[str, Any] = batch["args"]
        self.units_dir: str = batch["units_dir"]
        self.max_parallel: int = batch["max_parallel"]
        self.attempt: int = batch.get("attempt", 1)
        self.grace_seconds = float(batch.get("grace_seconds", 5.0))
        self.work = None if batch.get("cwd") else os.path.join(folder, "work")
        ours = {"PWD": self.work or batch["cwd"], BATCH_VARIABLE: folder}
        self.environment = {**os.environ, **(batch.get("env") or {}), **ours}
        os.chdir(batch.get("cwd") or folder)
        self.executable = find_executable(self.command[0], self.environment)
        self.no_input = os.open(os.devnull, os.O_RDONLY)
        self.waiting = deque(unit for unit in batch["units"] if unit["index"] not in results.known)
        self.wants_warm = bool(batch.get("warm"))
        self.warm = Warm(board)
        self.died_warm: set[int] = set()
        self.killed_for_memory = killed_for_memory()
        self.running: dict[int, Unit] = {}  # by process id, which is the process group's id too
        self.held: deque[tuple[float, Unit, Ended]] = deque()  # until when, what a signal ended
        self.killed: list[Unit] = []
        self.told = Unit.NOT_TOLD
        self.time_was_up = False

    def run(self) -> int:
        """Execute all units. Returns the exit code. Raises OSError if writing a file fails."""
        if self.results.interrupted:
            self.kill_units_of_the_last_runner()
        head: dict[str, Any] = {
            "format": FORMAT,
            "host": self.results.host,
            "pid": os.getpid(),
            "started_at": time.time(),
            "at_once": self.max_parallel,
        }
        if "SLURM_JOB_ID" in os.environ:
            head["slurm"] = slurm_job(os.environ)
        self.results.append(head)
        try:
            if self.wants_warm and len(self.waiting) > 1:
                self.warm_up()
            while self.running or self.held or (self.waiting and not self.told):
                self.start_units()
                if self.running or self.held:
                    self.react(signal.sigwait(SIGNALS))
        finally:
            self.warm.kill()
            self.send(signal.SIGKILL)
        if self.told == Unit.INTERRUPTED and (self.killed or self.waiting):
            killed = [unit.index for unit in self.killed]
            self.results.append_killed(killed, time_was_up=self.time_was_up)
            why = "as its time was up" if self.time_was_up else "by a signal"
            return complain(
                EXIT_INTERRUPTED,
                f"interrupted {why}. Units that were ended with it and have no result: "
                f"{len(self.killed)}, that were not started: {len(self.waiting)}",
            )
        stopped = self.told == Unit.STOPPED
        end: dict[str, Any] = {"end": True, "ended_at": time.time(), "stopped": stopped}
        if self.wants_warm:
            end["warm"] = self.warm.report()
        self.results.append(end)
        return EXIT_STOPPED if stopped else 0

    def kill_units_of_the_last_runner(self) -> None:
        found = kill_processes_of(self.folder)
        killed = [
            unit["index"]
            for unit in self.waiting
            if os.path.join(self.units_dir, unit["name"]) + ".args.json" in found
        ]
        if killed:
            self.results.append_killed(killed)

    def warm_up(self) -> None:
        """Start a warm process, if the command is one for it, and wait until it has imported."""
        file = place_of_file(self.command)
        if file is None or self.executable is None:
            self.warm.why_cold = NOT_PYTHON
            return
        if self.board.file < 0 or not self.children.adopt_orphans():
            self.warm.why_cold = "this system lacks what is needed for that"
            return
        longest = max((unit["name"] for unit in self.waiting), key=len)
        options = Unit(0, os.path.join(self.units_dir, longest)).options
        room = sum(len(os.fsencode(word)) + 1 for word in [*self.command, *options])
        if self.work is not None:
            enter(self.work)
        try:
            self.warm.start(
                self.executable, self.command, file, self.environment, self.no_input, room
            )
        except OSError as error:
            self.warm.why_cold = f"no process that imports can be started: {error}"
            return
        deadline = time.monotonic() + IMPORT_SECONDS
        while self.warm.is_importing and not self.told:
            received = signal.sigtimedwait(SIGNALS, max(0.0, deadline - time.monotonic()))
            if received is None:
                self.warm.give_up(f"importing takes longer than {IMPORT_SECONDS:g} s")
            else:
                self.react(received.si_signo)
                self.warm.listen()

    def react(self, received: int) -> None:
        if received == signal.SIGALRM and self.told:
            self.send(signal.SIGKILL)
        elif received in ENDING and not self.told:
            self.time_was_up = received == signal.SIGUSR1
            self.end_units()
        self.settle_ended()
        self.settle_held(time.monotonic())

    def end_units(self) -> None:
        """Tell the units to end, because the batch is stopped or this runner is interrupted."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if signal.SIGALRM in signal.sigpending():
            signal.sigwait((signal.SIGALRM,))  # it was meant for a unit whose result is held back
        if os.path.exists(os.path.join(self.folder, STOP_FILE)):
            self.settle_ended()
            self.settle_held(math.inf)
            self.told = Unit.STOPPED
        else:
            self.told = Unit.INTERRUPTED
            while self.held:
                self.count_as_killed(self.held.popleft()[1])
        for unit in self.running.values():
            unit.told = self.told
            self.board.note(unit)
        self.send(signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, max(self.grace_seconds, 0.001))

    def send(self, number: int) -> None:
        for group in self.running:
            send_to_group(group, number)

    def start_units(self) -> None:
        while self.waiting and not self.told:
            if len(self.running) + len(self.held) >= self.max_parallel:
                return
            self.start(self.waiting.popleft())
        self.warm.end()

    def start(self, content: dict[str, Any]) -> None:
        unit = Unit(content["index"], os.path.join(self.units_dir, content["name"]), content)
        died_warm = unit.index in self.died_warm
        unit.prepare({**self.common_args, **content["args"]}, self.attempt, goes_on=died_warm)
        if self.work is not None:
            enter(self.work)
        unit.is_warm = self.warm.control is not None and not died_warm
        self.board.announce(unit)
        process = self.warm.fork(unit, self.work) if unit.is_warm else None
        try:
            if process is None:
                unit.is_warm = False
                self.board.note(unit)
                process = self.spawn(unit)
                self.board.started(unit, process)
        except OSError as error:
            exit_code, why = self.why_not_started(error)
            self.results.record(unit, Ended(process=0, exit_code=exit_code), why)
            self.board.remove(unit)
        else:
            self.running[process] = unit

    def spawn(self, unit: Unit) -> int:
        """Start a unit cold. Returns its process id."""
        if self.executable is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.posix_spawn(
            self.executable,
            self.command + unit.options,
            self.environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, self.no_input, 0),
                (os.POSIX_SPAWN_DUP2, unit.log, 1),
                (os.POSIX_SPAWN_DUP2, unit.log, 2),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=DEFAULT_SIGNALS,
        )

    def why_not_started(self, error: OSError) -> tuple[int, str]:
        name, meaning = self.command[0], os.strerror(error.errno or 0)
        if self.executable is None:
            return NOT_FOUND, f"executable not found: no {name!r} in a folder of PATH ({meaning})"
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return NOT_STARTABLE, f"executable cannot be started: {name!r} ({meaning})"
        if os.path.exists(self.executable):
            return (
                NOT_STARTABLE,
                f"executable cannot be started: interpreter of {name!r} ({meaning})",
            )
        return NOT_FOUND, f"executable not found: {name!r} ({meaning})"

    def settle_ended(self) -> None:
        """Handle all units that have ended."""
        while self.running:
            ended = self.children.look()
            if ended is None:
                return
            unit = self.running.pop(ended.process, None)
            if unit is not None:
                self.take_note(unit, ended)
                self.board.remove(unit)
            elif ended.process == self.board.numbers[Board.WARM_PROCESS]:
                self.board.numbers[Board.WARM_PROCESS] = 0
            self.children.reap(ended.process)

    def take_note(self, unit: Unit, ended: Ended) -> None:
        kill_rest(ended)
        if unit.told == Unit.INTERRUPTED and ended.exit_code != 0:
            self.count_as_killed(unit)
        elif not unit.told and ended.perhaps_with_all():
            unit.ended_at = unit.now()
            self.held.append((time.monotonic() + RUNNER_MAY_FOLLOW_SECONDS, unit, ended))
        else:
            self.settle(unit, ended)

    def settle(self, unit: Unit, ended: Ended) -> None:
        """Record how a unit ended; or let it run once more, if being warm may have ended it."""
        if not unit.runs_again(ended) or self.is_for_memory(ended):
            self.results.record(unit, ended)
            return
        meaning = signal.strsignal(ended.signal or 0)
        unit.log_last_line(
            f"The unit was killed: {meaning} ({ended.signal}). It had been forked from a process "
            "that had imported for all units. It runs once more, started by itself."
        )
        os.close(unit.log)
        self.died_warm.add(unit.index)
        assert unit.content is not None  # as of all units that this runner has started
        self.waiting.appendleft(unit.content)

    def is_for_memory(self, ended: Ended) -> bool:
        """Whether the kernel has killed processes for lack of memory since this was last asked."""
        if ended.signal != signal.SIGKILL:
            return False
        before, self.killed_for_memory = self.killed_for_memory, killed_for_memory()
        return before < 0 or before != self.killed_for_memory

    def settle_held(self, now: float) -> None:
        """Record the units whose results were held back until now."""
        while self.held and self.held[0][0] <= now:
            _, unit, ended = self.held.popleft()
            self.settle(unit, ended)
        if self.held:
            signal.setitimer(signal.ITIMER_REAL, max(self.held[0][0] - now, 0.001))

    def count_as_killed(self, unit: Unit) -> None:
        self.killed.append(unit)
        unit.log_last_line(ENDED_WITH_ITS_RUNNER)
        os.close(unit.log)


def kill_rest(ended: Ended) -> None:
    """Kill the processes that an ended unit has left in its process group."""
    # The unit is not reaped yet (or is, but only this program makes groups), so its id is not
    # reused.
    send_to_group(ended.process, signal.SIGKILL)


class Guard:
    """The parent of a runner; when the runner is killed, also the parent of its units."""

    def __init__(
        self,
        runner: int,
        lock: Lock,
        folder: str,
        batch: dict[str, Any],
        children: Children,
        board: Board,
    ) -> None:
        self.runner = runner
        self.lock = lock
        self.folder = folder
        self.batch = batch
        self.children = children
        self.board = board

    def run(self) -> int:
        """Wait until the runner ends. Returns the exit code."""
        ended = None
        while ended is None:
            received = signal.sigwait((signal.SIGCHLD, *ENDING))
            if received != signal.SIGCHLD:
                os.kill(self.runner, received)
            ended = self.reap_orphans()
        if ended.signal is None:
            return ended.exit_code or 0
        try:
            self.lock.sign()
            lost = self.take_over()
        except (OSError, ValueError) as error:
            kill_processes_of(self.folder)
            return complain(
                EXIT_NOT_WRITTEN,
                f"the runner was killed, and units that had ended have no result: {error}",
            )
        return complain(
            128 + ended.signal,
            f"the runner was killed: {signal.strsignal(ended.signal)} ({ended.signal}). "
            f"Units that were killed with it and have no result: {lost}",
        )

    def reap_orphans(self) -> Ended | None:
        """Reap orphans of units while the runner lives. Returns how the runner ended, or None."""
        while True:
            orphan = self.children.look()
            runner = self.children.look(self.runner)
            if runner or not orphan:
                return runner
            if orphan.process in {slot[0] for slot in self.board.read()}:
                # A unit whose forking parent has ended when the runner was already about to.
                return self.children.look(self.runner, wait=True)
            self.children.reap(orphan.process)

    def take_over(self) -> int:
        """Record the units that ended by themselves, and kill the others. Returns their number."""
        if warm_process := self.board.numbers[Board.WARM_PROCESS]:
            send_to_group(warm_process, signal.SIGKILL)
        results = ResultsFile(os.path.join(self.folder, "results.jsonl"))
        units = dict(self.unsettled(results.known))
        self.wait_to_adopt(units.keys())
        ended_before = {process for process in units if self.children.look(process)}
        for process in units.keys() - ended_before:
            os.kill(process, signal.SIGKILL)  # first: its shell must not see a child die
            send_to_group(process, signal.SIGKILL)
        killed = []
        for process, unit in units.items():
            ended = self.children.look(process, wait=True)
            if ended is None:  # it is still not adopted, so nobody can know more than this
                killed.append(unit)
                continue
            kill_rest(ended)
            if unit.told == Unit.INTERRUPTED:
                was_killed = ended.exit_code != 0
            else:
                # Who killed the runner may have killed its units before.
                was_killed = ended.perhaps_with_all() or unit.runs_again(ended)
            if was_killed:
                killed.append(unit)
            else:
                results.record(unit, ended)
        if killed:
            results.append_killed(unit.index for unit in killed)
        kill_processes_of(self.folder)  # what left the process group of its unit
        for unit in killed:
            unit.log_last_line(ENDED_WITH_ITS_RUNNER)
        return len(killed)

    def wait_to_adopt(self, units: Iterable[int]) -> None:
        """Wait until units are children of this process, which can then learn how they ended.

        A unit that was forked just now may still be a child of the process that forked it. This is
        killed with the warm process, but takes a moment to end.
        """
        deadline = time.monotonic() + GONE_SECONDS
        while not all(map(self.children.include, units)) and time.monotonic() < deadline:
            time.sleep(0.001)

    def unsettled(self, settled: set[int]) -> Iterator[tuple[int, Unit]]:
        """The units that were executed and have no result, with their process ids."""
        slots = list(self.board.read())
        names = {unit["index"]: unit["name"] for unit in self.batch["units"]}
        for process, index, told, started_at, announced_at, is_warm in slots:
            if index in settled or index not in names:
                continue
            if process == Board.STARTING:
                found = self.process_started(announced_at, {slot[0] for slot in slots})
                if found is None:
                    continue
                process = found
            unit = Unit(index, os.path.join(self.batch["units_dir"], names[index]))
            unit.told, unit.started_at, unit.began = told, started_at, announced_at
            unit.is_warm = bool(is_warm)
            unit.open_log()
            yield process, unit

    def process_started(self, announced_at: int, others: set[int]) -> int | None:
        """Find a unit that the runner started, but died before it could note the process id.

        It is a child of this process, has its own process group or none yet, is in this session,
        and did not start before it was announced. Hardly any process that a unit left behind is
        like this.
        """
        own, group, session = os.getpid(), os.getpgrp(), os.getsid(0)
        earliest = announced_at * os.sysconf("SC_CLK_TCK") // 10**9
        found = []
        for process in processes():
            if process == self.runner or process in others:
                continue
            try:
                with open(f"/proc/{process}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # the process has ended
                continue
            parent, its_group, its_session, start = (int(fields[i]) for i in (1, 2, 3, 19))
            is_of_ours = (parent, its_session) == (own, session)
            if is_of_ours and its_group in (process, group) and start >= earliest:
                found.append((start, process))
        return max(found)[1] if found else None


class ResultsFile:
    """A `results.jsonl`, which an earlier runner may have begun.

    `known` are the indexes of the units that have a result; `interrupted` says that the last runner
    did not come to its end. A line that a crash has cut is removed, and its unit runs again.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.host = os.uname().nodename
        self.known: set[int] = set()
        self.interrupted = False
        self.file = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.identity = identity(os.fstat(self.file))
        whole_lines = 0
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._learn(number, line)
                whole_lines += len(line)
        os.ftruncate(self.file, whole_lines)

    def append(self, content: dict[str, Any]) -> None:
        """Append a line. Raises OSError if it cannot be written to the file that others read."""
        if identity(os.lstat(self.path)) != self.identity:
            raise OSError(errno.ESTALE, "the file was replaced while units ran", self.path)
        write(self.file, self.path, json.dumps(content) + "\n")

    def append_killed(self, indexes: Iterable[int], *, time_was_up: bool = False) -> None:
        """Append a line with the units that were ended because their runner was."""
        line = {"killed": sorted(indexes), "at": time.time()}
        self.append({**line, "time_was_up": True} if time_was_up else line)

    def record(self, unit: Unit, ended: Ended, not_started: str | None = None) -> None:
        """Finish the files of a unit that has ended, then append its result."""
        ended_at = unit.ended_at or unit.now()
        has_warnings = unit.has_warnings()
        error = STOPPED if unit.told == Unit.STOPPED else not_started
        if unit.told == Unit.STOPPED:
            unit.log_last_line("The unit was stopped.")
        elif not_started is not None:
            unit.log_last_line(f"The unit could not be started: {not_started}.")
        elif ended.signal is not None:
            meaning = signal.strsignal(ended.signal)
            unit.log_last_line(f"The unit was killed: {meaning} ({ended.signal}).")
        os.close(unit.log)
        self.append(
            {
                "index": unit.index,
                "exit_code": ended.exit_code,
                "signal": ended.signal,
                "error": error,
                "started_at": unit.started_at / 1e9,
                "ended_at": ended_at,
                "max_rss_kb": ended.max_rss_kb,
                "cpu_seconds": round(ended.cpu_seconds, 6),
                "host": self.host,
                "has_output": unit.settle_output(ended.exit_code == 0 and error is None),
                "has_warnings": has_warnings,
            }
        )

    def _learn(self, number: int, line: bytes) -> None:
        try:
            content = json.loads(line)
            if "index" in content:
                self.known.add(content["index"])
            else:
                self.interrupted = "end" not in content
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}, line {number} is damaged: {line[:200]!r}") from error
        if "format" in content:
            check_format(self.path, content["format"])


def slurm_job(told: Mapping[str, str]) -> dict[str, Any]:
    """What SLURM has reserved on all nodes for the job of these variables, and since when."""

    def number(name: str) -> int | None:
        return int(told[name]) if told.get(name, "").isdigit() else None

    job, array = told["SLURM_JOB_ID"], told.get("SLURM_ARRAY_JOB_ID")
    nodes = number("SLURM_JOB_NUM_NODES") or 1
    # Such as 4(x2),1: four on each of two nodes, and one.
    each = re.findall(r"(\d+)(?:\(x(\d+)\))?(?:,|$)", told.get("SLURM_JOB_CPUS_PER_NODE", ""))
    cpus = sum(int(count) * int(times or 1) for count, times in each) or None
    mem, per_cpu = number("SLURM_MEM_PER_NODE"), number("SLURM_MEM_PER_CPU")
    gpus = number("SLURM_GPUS_ON_NODE")
    return {
        "job": f"{array}_{told.get('SLURM_ARRAY_TASK_ID', '')}" if array else job,
        "cpus": cpus,
        "mem_mb": mem * nodes if mem else per_cpu * cpus if per_cpu and cpus else None,
        "gpus": (gpus or 0) * nodes,
        "since": number("SLURM_JOB_START_TIME"),
    }


def write(file: int, path: str, text: str) -> None:
    """Write the text in one call. Raises OSError, naming `path`, unless all of it is written."""
    write_bytes(file, path, text.encode())


def write_bytes(file: int, path: str, data: bytes) -> None:
    """As `write`."""
    try:
        written = os.write(file, data)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    if written != len(data):
        raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written", path)


def open_regular(path: str, flags: int, dir_fd: int | None = None, mode: int = 0o666) -> int:
    """Open a file in a folder in which others can write, without ever blocking.

    Raises OSError, naming `path`, if the file does not exist or is not a regular file: opening a
    named pipe may block for ever, and a symbolic link leads elsewhere.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(path, flags, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, socket or folder
            raise OSError(errno.EINVAL, NOT_REGULAR, path) from error
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, NOT_REGULAR, path)
    return file


def identity(status: os.stat_result) -> tuple[int, int]:
    """What distinguishes a file from another one with the same name."""
    return status.st_dev, status.st_ino


def remove(path: str) -> None:
    """Remove a file. If a folder is in its place, rename the folder."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError:
        if not os.path.isdir(path):
            raise
        os.rename(path, f"{path}.{time.time_ns()}.aside")


def enter(folder: str) -> None:
    """Change to a working folder; if it does not exist (any more), make it first."""
    try:
        os.chdir(folder)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)


def find_executable(name: str, environment: dict[str, str]) -> str | None:
    """The path of a command: a path is used as it is, a bare name is looked up in PATH."""
    if os.sep in name:
        return name
    for folder in os.get_exec_path(environment):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def place_of_file(command: list[str]) -> int | None:
    """Where FILE.py is in a command `python [-I ...] FILE.py ...`; None if it is not like that."""
    python, *others = command
    place = next((i for i, each in enumerate(others, 1) if not SWITCHES.fullmatch(each)), 0)
    is_file = command[place].endswith(".py") and os.path.isabs(command[place])
    return place if place and is_file and os.path.basename(python).startswith("python") else None


def send_to_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def processes() -> list[int]:
    """The ids of all processes; none if there is no /proc."""
    if not os.path.isdir("/proc"):
        return []
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def is_runner_of(process: int, folder: str) -> bool:
    """Whether a process is a unit runner on this batch, or its guard. Without /proc: True."""
    if not os.path.isdir("/proc"):
        return True
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            *words, its_folder, _ = [b"", *file.read().split(b"\0")]
    except (OSError, ValueError):  # it has ended
        return False
    return its_folder == os.fsencode(folder) and any(
        word.endswith(b"unit_runner.py") for word in words
    )


def runners_of(folder: str) -> list[int]:
    """The process ids of the unit runners on a batch, and of their guards; none without /proc."""
    return [process for process in processes() if is_runner_of(process, folder)]


def kill_runners_of(folder: str) -> None:
    """Kill the unit runners on a batch, and its units, even if its folder was removed."""
    for process in runners_of(folder):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    kill_processes_of(folder)


def kill_processes_of(folder: str) -> set[str]:
    """Kill the units of a batch whose runner is gone, so that no unit runs twice at a time.

    The units are found by their environment, because process ids may have been reused. Returns the
    argument files of the units that were killed, when these are gone or after some seconds. Without
    /proc nothing is done.
    """
    mark = f"{BATCH_VARIABLE}={os.path.abspath(folder)}".encode()
    deadline = time.monotonic() + GONE_SECONDS
    killed: set[str] = set()
    # Repeated, because processes take a moment to die, and one may have started another meanwhile.
    while (found := kill_marked(mark)) and time.monotonic() < deadline:
        killed.update(found)
        time.sleep(0.005)
    return killed


def kill_marked(mark: bytes) -> list[str]:
    """Kill all processes with `mark` in their environment. Returns their argument files or ""."""
    killed = []
    for process in processes():
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                if mark not in file.read().split(b"\0"):
                    continue
            with open(f"/proc/{process}/cmdline", "rb") as file:
                _, _, options = file.read().partition(b"\0--args-json\0")
            os.kill(process, signal.SIGKILL)
        except OSError:  # it has ended, or belongs to another user
            continue
        killed.append(os.fsdecode(options.partition(b"\0")[0]))
    return killed


def killed_for_memory() -> int:
    """How many processes this machine has killed for lack of memory; -1 if it does not tell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), -1)
    return -1


def since_boot() -> int:
    """Nanoseconds on the clock with which the kernel records when a process started."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
