"""Processes that are forked instead of started: they do and get the same."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from deployments.fork_server import ForkedProcess, ForkServer, ForkServerGoneError
from deployments.imported_late import BY_OURS, BY_SERVER
from deployments.services import Service, python_module, wait_for
from deployments.stack import Stack

SECONDS = 60
ENVIRONMENT = {"PATH": os.environ["PATH"], "GREETING": "hello"}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer.start(["tests.deployments.forked"], os.environ)
    yield server
    server.close()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def fork(server: ForkServer, output: Path) -> Callable[..., ForkedProcess]:
    """Forks the program of the tests with these arguments."""

    def fork(*arguments: str, **options: object) -> ForkedProcess:
        command = python_module("tests.deployments.forked", *arguments)
        with output.open("ab") as file:
            return server.fork(command, ENVIRONMENT, output=file, **options)  # type: ignore[arg-type]

    return fork


def test_a_fork_has_its_environment_arguments_session_and_output(
    fork: Callable[..., ForkedProcess], output: Path
) -> None:
    assert fork("tell", "more").wait(SECONDS) == 0
    assert set(output.read_text().splitlines()) == {
        "an error",
        "hello False True",
        "['tell', 'more'] '' None",
    }


def test_a_fork_has_the_name_that_it_is_given_or_else_that_of_who_asks(
    fork: Callable[..., ForkedProcess], output: Path
) -> None:
    fork("name", name="api").wait(SECONDS)
    fork("name").wait(SECONDS)
    assert output.read_text().splitlines() == ["api", multiprocessing.current_process().name]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("exit", "0"), 0), (("exit", "3"), 3), (("raise",), 1), (("kill",), -signal.SIGKILL)],
)
def test_how_a_fork_has_ended_is_told(
    fork: Callable[..., ForkedProcess], arguments: tuple[str, ...], code: int
) -> None:
    process = fork(*arguments)
    assert process.wait(SECONDS) == code
    assert process.poll() == code


def test_an_exception_is_told_as_python_does(
    fork: Callable[..., ForkedProcess], output: Path
) -> None:
    fork("raise").wait(SECONDS)
    assert output.read_text().endswith("ValueError: of a program\n")


def test_a_fork_that_runs_has_not_ended_and_hears_signals(
    fork: Callable[..., ForkedProcess],
) -> None:
    process = fork("until told", stdin=subprocess.PIPE)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.terminate()
    assert process.wait(SECONDS) == -signal.SIGTERM
    process.terminate()  # nobody hears it


def test_a_pipe_to_a_fork_ends_with_the_one_who_asked(fork: Callable[..., ForkedProcess]) -> None:
    process = fork("until told", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(SECONDS) == 0


def test_a_fork_may_ask_for_forks_if_it_is_allowed_to(fork: Callable[..., ForkedProcess]) -> None:
    assert fork("fork", may_fork=True).wait(SECONDS) == 7
    assert fork("fork").wait(SECONDS) == 1


def test_those_who_ask_at_the_same_time_get_their_own(fork: Callable[..., ForkedProcess]) -> None:
    codes = [number % 100 for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        ended = threads.map(lambda code: fork("exit", str(code)).wait(SECONDS), codes)
        assert list(ended) == codes


def test_a_server_can_be_forked_from_another(server: ForkServer, output: Path) -> None:
    with output.open("wb") as file:
        second = ForkServer.start([], ENVIRONMENT, file, forked_from=server)
        process = second.fork(
            python_module("tests.deployments.forked", "server"), ENVIRONMENT, output=file
        )
    while not output.read_text():
        assert process.poll() is None
    process.kill()
    second.close()
    assert output.read_text() == "True\n"
    assert second.process is not None
    assert second.process.poll() == 0


def test_a_server_imports_more_when_it_is_told() -> None:
    server = ForkServer.start([], os.environ)
    command = python_module("tests.deployments.forked", "knows", "wave")
    assert server.fork(command, ENVIRONMENT).wait(SECONDS) == 1
    server.learn(["wave"])
    assert server.is_ready(SECONDS)
    assert server.fork(command, ENVIRONMENT).wait(SECONDS) == 0
    server.close()


def test_a_server_that_cannot_import_more_is_never_ready(
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = ForkServer.start([], os.environ)
    server.learn(["no.such.module"])
    with pytest.raises(ForkServerGoneError):
        server.is_ready(SECONDS)
    server.close()
    assert "No module named 'no'" in capfd.readouterr().err


def test_what_was_forked_outlives_its_server(output: Path) -> None:
    server = ForkServer.start([], os.environ)
    command = python_module("tests.deployments.forked", "until told")
    process = server.fork(command, ENVIRONMENT, stdin=subprocess.PIPE)
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(SECONDS) == 255  # nobody knows
    with pytest.raises(ForkServerGoneError):
        server.fork(command, ENVIRONMENT)


def test_a_service_is_started_if_it_cannot_be_forked(tmp_path: Path) -> None:
    server = ForkServer.start([], os.environ)
    assert server.is_ready(SECONDS)
    server.close()
    command = [sys.executable, "-c", "print('here')"]
    service = Service("api", command, {}, tmp_path / "logs" / "api.log", fork_server=server)
    service.start()
    wait_for(service, lambda: service.ended() is not None, SECONDS, print)
    assert service.last_words() == "here"


def test_what_services_are_forked_from_has_one_thread(stack: Stack) -> None:
    """A fork has only the thread that forks, and the locks of all."""
    for service in stack.services:
        assert service.fork_server is not None
        assert service.fork_server.process is not None
        assert psutil.Process(service.fork_server.process.pid).num_threads() == 1


def test_a_server_that_cannot_import_is_never_ready(capfd: pytest.CaptureFixture[str]) -> None:
    server = ForkServer.start(["no.such.module"], os.environ)
    with pytest.raises(ForkServerGoneError):
        server.is_ready(SECONDS)
    assert "No module named 'no'" in capfd.readouterr().err


def test_a_server_that_cannot_fork_says_why_and_goes_on() -> None:
    server = ForkServer.start(["tests.deployments.fake_limit"], os.environ)
    for _ in range(2):
        with pytest.raises(BlockingIOError, match="a process cannot be forked"):
            server.fork(python_module("tests.deployments.forked", "exit", "0"), ENVIRONMENT)
    server.close()
    assert server.process is not None
    assert server.process.returncode == 0


@pytest.mark.parametrize("module", sorted({*BY_OURS, *BY_SERVER}))
def test_what_is_imported_before_a_fork_is_there(module: str) -> None:
    """Another name would be passed over in silence, and each process import it for its own."""
    assert find_spec(module) is not None
