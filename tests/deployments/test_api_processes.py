"""`fractal-prefect api --workers 2`: two processes serve, and live and die with the first one."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import URL

from deployments.services import is_alive, usable_port
from tests.conftest import PREFECT_AWAY
from tests.deployments.conftest import COMMAND, PATIENCE_SECONDS, environment

SECRET = "a secret of the tests, which is long enough"


class Serving:
    """The command, its port, and the processes that serve for it."""

    def __init__(self, database: URL, folder: Path) -> None:
        url = database.set(drivername="postgresql").render_as_string(hide_password=False)
        self.port = usable_port("127.0.0.1", 0, "--port")
        self.log = folder / "api.log"
        with self.log.open("w") as log:
            self.command = subprocess.Popen(
                [COMMAND, "api", "--workers", "2", "--port", str(self.port)],
                env={
                    **environment(folder),
                    "FRACTAL_DATABASE_URL": url,
                    "FRACTAL_JWT_SECRET": SECRET,
                    "PREFECT_API_URL": PREFECT_AWAY,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def family(self) -> list[psutil.Process]:
        """The command's process and all below it."""
        first = psutil.Process(self.command.pid)
        return [first, *first.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The processes that serve."""
        return self.family()[1:]

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/api/alive/").is_success
        except httpx.TransportError:
            return False

    def wait(self, seen: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def lines(self, words: str) -> int:
        """How often the log says this."""
        return self.log.read_text().count(words)


@pytest.fixture
def serving(database: URL, tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(database, tmp_path)
    serving.wait(lambda: serving.lines("Application startup complete") == 2)
    family = serving.family()
    yield serving
    for process in family:
        if process.is_running():
            process.kill()
    serving.command.wait()


def test_two_processes_serve_and_one_that_ends_is_replaced(serving: Serving) -> None:
    first, second = serving.workers()
    assert serving.answers()

    first.kill()
    serving.wait(lambda: serving.lines("Application startup complete") == 3)

    assert second in serving.workers()
    assert len(serving.workers()) == 2
    assert serving.answers()
    family = serving.family()
    serving.command.send_signal(signal.SIGTERM)
    assert serving.command.wait(PATIENCE_SECONDS) == 0
    assert not any(map(is_alive, family))


def test_no_process_outlives_the_first_one(serving: Serving) -> None:
    workers = serving.workers()

    serving.command.kill()

    serving.wait(lambda: not any(map(is_alive, workers)))
    with socket.create_server(("127.0.0.1", serving.port)):
        pass
