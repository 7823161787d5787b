"""The program that ends a script when nobody listens any more, run by the system's Python."""

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from flows.programs import while_connected

PROGRAM = ["/usr/bin/python3", "-I", "-S", while_connected.__file__]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*PROGRAM, *arguments], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    )


def test_the_output_and_the_exit_code_are_those_of_the_script() -> None:
    with start("echo out; echo err >&2; exit 7") as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"out\nerr\n"
        assert process.wait(10) == 7


@pytest.mark.parametrize(("script", "number"), [("", 15), ("trap '' TERM; ", 9)])
def test_a_script_ends_with_all_that_it_started_when_its_input_ends(
    script: str, number: int
) -> None:
    with start(f"{script}sleep 1000 & echo $!; sleep 1000") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.stdin.close()
        began = time.monotonic()
        assert process.wait(10) == 128 + number
        psutil.wait_procs([child], timeout=5)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        assert time.monotonic() - began < 5


def test_of_two_with_the_same_lock_the_second_waits_for_the_end_of_the_first(
    tmp_path: Path,
) -> None:
    lock, gate, events = (tmp_path / name for name in ("folder/lock", "gate", "events"))
    until = f"until [ -e {gate} ]; do sleep 0.05; done"
    script = f"echo begins | tee -a {events}; {until}; echo ends >> {events}"
    with start(script, str(lock)) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"begins\n"
        with start(script, str(lock)) as second:
            assert second.stdout is not None
            assert second.stdout.readline().startswith(b"Waits for the end")
            gate.touch()
            assert first.wait(10) == second.wait(10) == 0
    assert events.read_text().split() == ["begins", "ends"] * 2


def test_one_that_waits_for_a_lock_ends_when_its_input_ends(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with start("echo begins; exec sleep 1000", lock) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"begins\n"
        with start("echo never", lock) as second:
            assert second.stdin is not None
            assert second.stdout is not None
            assert second.stdout.readline().startswith(b"Waits")
            second.stdin.close()
            assert second.wait(10) == 128 + 15
            assert second.stdout.read() == b""
        assert first.stdin is not None
        first.stdin.close()
