"""The program that ends a script when nobody listens any more, run by the system's Python."""

import subprocess
import time

import psutil
import pytest

from flows.programs import while_connected

PROGRAM = ["/usr/bin/python3", "-I", "-S", while_connected.__file__]


def start(script: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*PROGRAM, script], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)


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
