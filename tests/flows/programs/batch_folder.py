"""A batch in a folder, with the unit runners on it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.programs import unit_runner

RUNNER = Path(unit_runner.__file__)
PATIENCE = 20.0


KILLS_ITSELF = """
import os, sys, time
from flows.programs import unit_runner

guard, calls, method = os.getpid(), [], unit_runner.{moment}

def kills(*arguments, **options):
    returned = method(*arguments, **options)
    calls.append(1)
    if len(calls) == 3 and os.getpid() != guard:
        time.sleep({pause})
        os.kill(os.getpid(), 9)
    return returned

unit_runner.{moment} = kills
sys.exit(unit_runner.main(sys.argv[1:]))
"""


WAITS_LONGER_FOR_ITS_END = f"""
import sys
from flows.programs import unit_runner

unit_runner.RUNNER_MAY_FOLLOW_SECONDS = {PATIENCE}
sys.exit(unit_runner.main(sys.argv[1:]))
"""


class BatchFolder:
    """A batch, and the runner on it. `work` is a folder for what the units of a test leave."""

    def __init__(self, root: Path) -> None:
        self.folder, self.units_dir, self.work = root / "batch", root / "units", root / "work"
        for folder in (self.folder, self.units_dir, self.work):
            folder.mkdir()
        self.runners: list[subprocess.Popen[str]] = []

    def fill(self, command: list[str], own_args: list[dict[str, Any]], **options: Any) -> None:
        content = {
            "format": 2,
            "command": command,
            "max_parallel": 2,
            "args": {},
            "units": [
                {"index": index, "name": f"{index:06d}", "args": args}
                for index, args in enumerate(own_args)
            ],
            "units_dir": str(self.units_dir),
            "cwd": str(self.work),
            "env": None,
            **options,
        }
        (self.folder / "batch.json").write_text(json.dumps(content))

    def fill_with_shell(self, script: str, units: int = 1, **options: Any) -> None:
        """In the script, $1 is the unit's index, $args and $out are its files."""
        path = self.folder / "unit.sh"
        path.write_text(f'args="$2"; out="$4"; set -- "$(grep -o "[0-9]*" "$args")"\n{script}\n')
        self.fill(["sh", str(path)], [{"i": i} for i in range(units)], **options)

    def start(self, files_of_at_most: int = -1) -> "subprocess.Popen[str]":
        limit = (
            f"import resource as r, os, sys; r.setrlimit(r.RLIMIT_FSIZE, ({files_of_at_most},)*2)"
        )
        program = [sys.executable, str(RUNNER), str(self.folder)]
        return self.start_python(f"{limit}; os.execv(sys.argv[1], sys.argv[1:])", *program)

    def start_python(self, code: str, *arguments: str) -> "subprocess.Popen[str]":
        with RUNNER.open() as not_for_units:
            runner = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                stdin=not_for_units,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.runners.append(runner)
        return runner

    def start_to_be_killed_at(self, moment: str, pause: float) -> "subprocess.Popen[str]":
        """A runner that kills itself some time after it called a method for the third time."""
        return self.start_python(KILLS_ITSELF.format(moment=moment, pause=pause), str(self.folder))

    def start_with_time_for_its_end(self) -> "subprocess.Popen[str]":
        """A runner that waits longer for its own end to follow, which a busy machine delays."""
        return self.start_python(WAITS_LONGER_FOR_ITS_END, str(self.folder))

    def assert_nothing_is_lost_if_killed_at(self, moment: str, pause: float, units: int) -> None:
        """Of units that keep a journal, when their runner is killed and the next one goes on."""
        guard = self.start_to_be_killed_at(moment, pause)
        guard.communicate(timeout=PATIENCE)
        assert guard.returncode == 128 + signal.SIGKILL
        wait_until(lambda: not self.members())
        if pause:  # the units have ended in it
            assert set(self.journal()) == set(self.results())
            assert not any("killed" in line for line in self.lines())
        assert self.run().returncode == 0
        self.assert_only_killed_units_ran_twice(units)

    def runner_pid(self) -> int:
        """The runner's process id, which the lock file holds when the guard has forked it."""
        return int((self.folder / "lock").read_text().split()[0])

    def allow_stop(self) -> None:
        """Leave word that the next SIGTERM is to stop the batch."""
        (self.folder / "stop").touch()

    def send_to_all(self, number: int) -> None:
        """Send a signal to the guard, the runner, the units and what they started."""
        self.send_to(self.members(), number)

    def send_to(self, processes: list[int], number: int) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def members(self) -> list[int]:
        """Their process ids, rising: the guard, the runner and then the units began."""
        mark = os.fsencode(f"{unit_runner.BATCH_VARIABLE}={self.folder}")
        found = []
        for process in sorted(unit_runner.processes()):
            try:
                words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(self.folder) in words or mark in variables:
                found.append(process)
        return found

    def wait_for_units(self, *pid_files: str) -> None:
        wait_until(lambda: all((self.work / name).exists() for name in pid_files))

    def kill_all(self) -> None:
        """Kill the runner, its guard and the units."""
        self.send_to_all(signal.SIGKILL)
        unit_runner.kill_processes_of(str(self.folder))

    def run(self) -> "subprocess.CompletedProcess[str]":
        process = self.start()
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "results.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def results(self) -> dict[int, dict[str, Any]]:
        found = [line for line in self.lines() if "index" in line]
        assert len({line["index"] for line in found}) == len(found), "a unit has two results"
        return {line["index"]: line for line in found}

    def log(self, index: int) -> str:
        return (self.units_dir / f"{index:06d}.log").read_text()

    def journal(self) -> list[int]:
        """The units that have written their argument files into a journal, as often as they did."""
        path = self.work / "journal"
        lines = path.read_text().split() if path.exists() else []
        return [int(Path(line).name[:6]) for line in lines]

    def assert_only_killed_units_ran_twice(self, units: int) -> None:
        ran = self.journal()
        killed = {index for line in self.lines() for index in line.get("killed", ())}
        assert {index for index in ran if ran.count(index) > 1} <= killed
        assert set(ran) == set(range(units)) == set(self.results())
        assert all(r["exit_code"] == 0 and r["has_output"] for r in self.results().values())

    def run_and_kill_at_random(self, kill: Callable[[int, int], None]) -> int:
        """Start runners until one comes to its end, and kill them; how many were killed."""
        for killed in range(1000):
            before = len(self.journal())
            guard = self.start()
            enough = before + random.randint(1, 60)
            wait_until(
                lambda enough=enough, guard=guard: (
                    len(self.journal()) >= enough or guard.poll() is not None
                )
            )
            time.sleep(random.random() / 500)
            if guard.poll() is None:
                kill(guard.pid, self.runner_pid())
            guard.communicate(timeout=PATIENCE)
            if guard.returncode == 0:
                return killed
        raise AssertionError("no runner came to its end")

    def files(self, index: int) -> set[str]:
        return {path.name[7:] for path in self.units_dir.glob(f"{index:06d}.*")}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def lives(pid: Path | int) -> bool:
    """Whether a process, or that whose id a file holds, lives and is no zombie."""
    try:
        number = pid if isinstance(pid, int) else int(pid.read_text())
        status = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second if it ends while it is read
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def has_pending(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (pending,) = [int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd")]
    return bool(pending & 1 << number - 1)
