"""What a stack takes that does nothing: seconds to start, memory and CPU of each process.

    python -m benchmarks.idle [--settle 20] [--watch 30] [--jobs 0]

`fractal-prefect up` on a new folder; with `--jobs`, so many small jobs have run before it is
looked at. Memory is PSS, in which what processes share is divided among them; "own" is what a
process would free by its end. PostgreSQL is told apart from the rest.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.one_image import side
from deployments.postgres import EmbeddedPostgres
from tests.differential.reference import ADMIN, PASSWORD

_ADDRESS = re.compile(r"REST API:\s+(\S+)")
_MIB = 1024  # in KiB


@dataclass(frozen=True)
class Taken:
    """What a process takes: memory in MiB, and percent of one core."""

    title: str
    pss: float
    own: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.pss:7.1f} {self.own:7.1f} {self.cpu:6.2f}  {self.title}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settle", type=float, default=20, help="seconds before it is looked at")
    parser.add_argument("--watch", type=float, default=30, help="seconds in which CPU is counted")
    parser.add_argument("--jobs", type=int, default=0, help="jobs that run before")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fractal-benchmark-") as folder,
        _up(Path(folder)) as up,
    ):
        address = _ready(up)
        if options.jobs:
            jobs = side("fractal-prefect", address)
            for _ in range(options.jobs):
                jobs.measure()
        time.sleep(options.settle)
        postgres = EmbeddedPostgres(Path(folder, "data", "postgres"))
        assert postgres.pid is not None
        report(psutil.Process(up.pid), psutil.Process(postgres.pid), options.watch)


@contextmanager
def _up(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command, until the block ends."""
    folder.chmod(0o755)  # PostgreSQL has a user of its own
    password = folder / "password"
    password.write_text(PASSWORD)
    command = [str(Path(sys.executable).with_name("fractal-prefect")), "up", "--port", "0"]
    command += ["--prefect-port", "0", "--data-dir", str(folder / "data")]
    command += ["--admin-email", ADMIN, "--admin-password-file", str(password)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def _ready(up: "subprocess.Popen[str]") -> str:
    """The address of the REST API, when all is ready; shows how long the parts take."""
    assert up.stdout is not None
    for line in up.stdout:
        print(line, end="", flush=True)
        if found := _ADDRESS.search(line):
            return found[1]
    raise SystemExit("It did not start.")


def report(up: psutil.Process, postgres: psutil.Process, watch: float) -> None:
    pythons, others = _family(up), _family(postgres)
    before = {each: _cpu(each) for each in (*pythons, *others)}
    time.sleep(watch)
    python = [_taken(each, before[each], watch) for each in pythons if each.is_running()]
    other = [_taken(each, before[each], watch) for each in others if each.is_running()]
    print(f"{'PSS':>7} {'own':>7} {'CPU %':>6}  MiB")
    for each in python:
        print(each)
    print(_sum(python, "all of Python"))
    print(_sum(other, "all of PostgreSQL"))


def _family(first: psutil.Process) -> list[psutil.Process]:
    return [first, *first.children(recursive=True)]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _taken(process: psutil.Process, cpu_before: float, watch: float) -> Taken:
    memory = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    kib = {name: int(value.split()[0]) for name, value in memory.items()}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    cpu = 100 * (_cpu(process) - cpu_before) / watch
    title = " ".join(process.cmdline()).replace(str(Path(sys.executable).parent) + os.sep, "")
    return Taken(title[:100], kib["Pss"] / _MIB, own / _MIB, cpu)


def _sum(taken: list[Taken], title: str) -> Taken:
    return Taken(
        title,
        sum(each.pss for each in taken),
        sum(each.own for each in taken),
        sum(each.cpu for each in taken),
    )


if __name__ == "__main__":
    main()
