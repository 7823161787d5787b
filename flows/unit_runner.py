"""Execute the units of a batch: `python unit_runner.py BATCH_DIR`.

A unit is one execution of a task's command. This program is copied to where units run, so it is one
file, needs the standard library only, and runs with Python 3.8 and newer.

In: `BATCH_DIR/batch.json`

    {"format": 1, "command": ["python", "task.py"], "max_parallel": 4, "args": {...},
     "units": [{"index": 0, "name": "000000", "args": {...}}], "units_dir": "/absolute/path",
     "cwd": null (BATCH_DIR), "env": null, "grace_seconds": 5}

For every unit, `max_parallel` at once, `<command> --args-json A --out-json B` runs as a process
group of its own. In `units_dir` the unit has `<name>.args.json` (A: `args` overridden by its own),
`<name>.log` (its stdout and stderr) and, if it succeeded and wrote one, `<name>.out.json`. What a
unit leaves running in its process group is killed when it ends.

Out: `BATCH_DIR/results.jsonl`, a line for each finished unit, in the order in which they finish

    {"index", "exit_code" or null, "signal" or null, "error" or null, "started_at", "ended_at",
     "max_rss_kb", "cpu_seconds", "host", "has_output", "has_warnings"}

after a line `{"format": 1, "host", "pid", "started_at"}` for each runner that worked on the batch,
and before a line `{"end": true, "ended_at", "stopped"}` when it came to its end. A unit that has a
line is not run again: a runner that is started on a begun batch goes on with it.

Peak memory and CPU time are those of the unit and the descendants it waited for. Peak memory is
never less than what this program itself needs, because the kernel begins to count before it loads
the unit's program.

While it lives, a runner holds a lock (`flock`) on `BATCH_DIR/lock`, which contains its process id.
SIGTERM or SIGINT stops the batch: its units get SIGTERM, and SIGKILL `grace_seconds` later.

Exit codes: 0 all units ended, 2 the batch cannot be read, 3 another runner works on it, 74 a file
could not be written, 143 stopped.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import sys
import time
from collections import deque
from typing import Any

FORMAT = 1
EXIT_UNUSABLE, EXIT_LOCKED, EXIT_NOT_WRITTEN, EXIT_STOPPED = 2, 3, 74, 143
NOT_STARTABLE, NOT_FOUND = 126, 127

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
BATCH_VARIABLE = "FRACTAL_UNIT_BATCH"
WARNING = re.compile(rb"\bWARNING\b|:\d+: \w*Warning: ")
SEARCHED_FOR_WARNINGS = 1024 * 1024


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        return complain(EXIT_UNUSABLE, "usage: python unit_runner.py BATCH_DIR")
    folder = os.path.abspath(arguments[0])
    # Signals are taken in one place, by sigwait, so none interrupts anything or comes unnoticed.
    # SIGCHLD needs a handler, else it may be dropped or, if the parent ignored it, never sent.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        take_lock(os.path.join(folder, "lock"))
        results = ResultsFile(os.path.join(folder, "results.jsonl"))
        runner = Runner(folder, read_batch(folder), results)
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
    print(f"unit_runner: {message}", file=sys.stderr, flush=True)
    return exit_code


def take_lock(path: str) -> None:
    """Hold the lock until this process ends. Raises BlockingIOError if another one holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(lock, 0)
    write(lock, path, str(os.getpid()))


def read_batch(folder: str) -> dict[str, Any]:
    """The content of `batch.json`. Raises ValueError if it is not what it should be."""
    path = os.path.join(folder, "batch.json")
    with open(path, encoding="utf-8") as file:
        batch: dict[str, Any] = json.load(file)
    if batch.get("format") != FORMAT:
        raise ValueError(f"{path} has format {batch.get('format')!r}, needed is {FORMAT}")
    missing = {"command", "max_parallel", "args", "units", "units_dir"} - set(batch)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
    if not batch["command"] or batch["max_parallel"] < 1:
        raise ValueError(f"{path} needs a command, and a max_parallel of at least 1")
    return batch


class Unit:
    """A unit that is being executed."""

    def __init__(self, index: int, path: str) -> None:
        self.index = index
        self.log_path = path + ".log"
        self.args_path = path + ".args.json"
        self.out_path = path + ".out.json"
        self.partial_path = path + ".out.json.partial"
        self.stopped = False
        self.started_at = time.time()
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self.log = os.open(self.log_path, flags, 0o666)

    def write_args(self, args: dict[str, Any]) -> None:
        """Write the arguments, and remove what an earlier, interrupted execution left."""
        for path in (self.out_path, self.partial_path):
            remove(path)
        file = os.open(self.args_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        write(file, self.args_path, json.dumps(args, indent=2))
        os.close(file)

    def log_last_line(self, sentence: str) -> None:
        size = os.fstat(self.log).st_size
        begin = "\n" if size and os.pread(self.log, 1, size - 1) != b"\n" else ""
        write(self.log, self.log_path, f"{begin}{sentence}\n")

    def has_warnings(self) -> bool:
        if os.fstat(self.log).st_size == 0:
            return False
        return bool(WARNING.search(os.pread(self.log, SEARCHED_FOR_WARNINGS, 0)))

    def settle_output(self, succeeded: bool) -> bool:
        """Give the output its name if the unit succeeded, else remove it; whether there is one."""
        if not succeeded:
            remove(self.partial_path)
            return False
        try:
            os.rename(self.partial_path, self.out_path)
        except FileNotFoundError:
            return False
        return True


class Runner:
    """Executes the units of a batch that have no result yet."""

    def __init__(self, folder: str, batch: dict[str, Any], results: ResultsFile) -> None:
        self.folder = folder
        self.results = results
        self.host = os.uname().nodename
        self.command: list[str] = batch["command"]
        self.common_args: dict[str, Any] = batch["args"]
        self.units_dir: str = batch["units_dir"]
        self.max_parallel: int = batch["max_parallel"]
        self.grace_seconds = float(batch.get("grace_seconds", 5.0))
        self.environment = {**os.environ, **(batch.get("env") or {}), BATCH_VARIABLE: folder}
        os.chdir(batch.get("cwd") or folder)
        self.executable = find_executable(self.command[0], self.environment)
        self.no_input = os.open(os.devnull, os.O_RDONLY)
        self.waiting = deque(unit for unit in batch["units"] if unit["index"] not in results.known)
        self.running: dict[int, Unit] = {}  # by process id, which is the process group's id too
        self.stopping = False

    def run(self) -> int:
        """Execute all units; the exit code. Raises OSError if a file cannot be written."""
        if self.results.interrupted:
            kill_processes_of(self.folder)
        self.results.append(
            {"format": FORMAT, "host": self.host, "pid": os.getpid(), "started_at": time.time()}
        )
        try:
            while self.running or (self.waiting and not self.stopping):
                self.start_units()
                if self.running:
                    self.react(signal.sigwait(SIGNALS))
        finally:
            self.send(signal.SIGKILL)
        self.results.append({"end": True, "ended_at": time.time(), "stopped": self.stopping})
        return EXIT_STOPPED if self.stopping else 0

    def react(self, received: int) -> None:
        self.reap()
        if received == signal.SIGALRM:
            self.send(signal.SIGKILL)
        elif received != signal.SIGCHLD and not self.stopping:
            self.stopping = True
            for unit in self.running.values():
                unit.stopped = True
            self.send(signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, max(self.grace_seconds, 0.001))

    def send(self, number: int) -> None:
        for group in self.running:
            send_to_group(group, number)

    def start_units(self) -> None:
        while self.waiting and len(self.running) < self.max_parallel and not self.stopping:
            self.start(self.waiting.popleft())

    def start(self, content: dict[str, Any]) -> None:
        unit = Unit(content["index"], os.path.join(self.units_dir, content["name"]))
        unit.write_args({**self.common_args, **content["args"]})
        options = ["--args-json", unit.args_path, "--out-json", unit.partial_path]
        try:
            if self.executable is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            process = os.posix_spawn(
                self.executable,
                self.command + options,
                self.environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self.no_input, 0),
                    (os.POSIX_SPAWN_DUP2, unit.log, 1),
                    (os.POSIX_SPAWN_DUP2, unit.log, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores these two
            )
        except OSError as error:
            exit_code, why = self.why_not_started(error)
            self.record(unit, exit_code=exit_code, error=why)
        else:
            self.running[process] = unit

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

    def reap(self) -> None:
        """Take note of all units that have ended."""
        while self.running:
            process, status, usage = os.wait4(-1, os.WNOHANG)
            if process == 0:
                return
            unit = self.running.pop(process, None)
            if unit is None:
                continue
            # What the unit left behind. Only this program makes groups, so the id is not reused.
            send_to_group(process, signal.SIGKILL)
            self.record(
                unit,
                exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                ended_by=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                error="stopped" if unit.stopped else None,
                # Linux counts in KiB, macOS in bytes
                max_rss_kb=usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1),
                cpu_seconds=usage.ru_utime + usage.ru_stime,
            )

    def record(
        self,
        unit: Unit,
        exit_code: int | None,
        ended_by: int | None = None,
        error: str | None = None,
        max_rss_kb: int = 0,
        cpu_seconds: float = 0.0,
    ) -> None:
        """Settle the files of a unit that has ended, then append its result."""
        ended_at = time.time()
        has_warnings = unit.has_warnings()
        if unit.stopped:
            unit.log_last_line("The unit was stopped.")
        elif error is not None:
            unit.log_last_line(f"The unit could not be started: {error}.")
        elif ended_by is not None:
            unit.log_last_line(f"The unit was killed: {signal.strsignal(ended_by)} ({ended_by}).")
        os.close(unit.log)
        self.results.append(
            {
                "index": unit.index,
                "exit_code": exit_code,
                "signal": ended_by,
                "error": error,
                "started_at": unit.started_at,
                "ended_at": ended_at,
                "max_rss_kb": max_rss_kb,
                "cpu_seconds": round(cpu_seconds, 6),
                "host": self.host,
                "has_output": unit.settle_output(exit_code == 0 and error is None),
                "has_warnings": has_warnings,
            }
        )


class ResultsFile:
    """A `results.jsonl`, which may have been begun by an earlier runner.

    `known` are the indexes of the units that have a result; `interrupted` says that the last
    runner did not come to its end. A line that was cut by a crash is removed, its unit runs again.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: set[int] = set()
        self.interrupted = False
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        whole_lines = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._learn(number, line)
                whole_lines += len(line)
        os.ftruncate(self.file, whole_lines)

    def append(self, content: dict[str, Any]) -> None:
        write(self.file, self.path, json.dumps(content) + "\n")

    def _learn(self, number: int, line: bytes) -> None:
        try:
            content = json.loads(line)
            if "index" in content:
                self.known.add(content["index"])
            else:
                self.interrupted = "end" not in content
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}, line {number} is damaged: {line[:200]!r}") from error


def write(file: int, path: str, text: str) -> None:
    """Write in one call. Raises OSError, which names `path`, unless all of it is written."""
    data = text.encode()
    try:
        written = os.write(file, data)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    if written != len(data):
        raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written", path)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def find_executable(name: str, environment: dict[str, str]) -> str | None:
    """Where a command is: a path is taken as it is, a bare name is looked up in PATH."""
    if os.sep in name:
        return name
    for folder in os.get_exec_path(environment):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def send_to_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def kill_processes_of(folder: str) -> None:
    """Kill the units of a batch whose runner is gone, so that none runs twice at a time.

    They are known by their environment, as process ids may have been reused. Where there is no
    /proc nothing is done.
    """
    mark = f"{BATCH_VARIABLE}={os.path.abspath(folder)}".encode()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    os.kill(int(name), signal.SIGKILL)
        except OSError:  # it has ended, or it is another user's
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
