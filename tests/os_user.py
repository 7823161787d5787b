"""Another OS user of this machine, as whom programs of users run."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.process.accounts import Account
from flows.process.transport import LocalTransport

NAME = "fractal-test-jobs"
PYTHON = "/usr/bin/python3"  # which that user may run, wherever that of the tests is


@pytest.fixture(scope="session")
def os_user() -> Account:
    """It is made, and stays; where it cannot be used, the tests that ask for it are skipped."""
    if os.geteuid() != 0:
        pytest.skip("Only root can make another OS user.")
    programs = ("sudo", "useradd", PYTHON)
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"Another OS user needs {', '.join(missing)}.")
    if subprocess.run(["id", NAME], capture_output=True).returncode:
        subprocess.run(["useradd", "--create-home", "--user-group", NAME], check=True)
    return Account.named(NAME)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own forbid."""
    with tempfile.TemporaryDirectory(prefix="fractal-open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def sleepers(seconds: int) -> str:
    """The process ids of all programs `sleep`, of whoever, that were to last as long."""
    ended = await LocalTransport().run(("pgrep", "-x", "-f", f"sleep {seconds}"))
    return ended.stdout.decode()
