"""Services: child processes that are watched, and what is done about those left over."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments.fork_server import ForkServer
from deployments.services import (
    Service,
    ServiceError,
    Services,
    end_leftovers,
    python_module,
    usable_port,
    wait_for,
)

SPEAKS = "print('first line'); print('last line')"
STAYS = "import time; print('here', flush=True); time.sleep(60)"

Make = Callable[[str], Service]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts a service that runs a Python text."""
    made: list[Service] = []

    def start(code: str) -> Service:
        log = tmp_path / "logs" / "worker.log"
        service = Service("worker", [sys.executable, "-c", code], {"GREETING": "hello"}, log)
        made.append(service)
        service.start()
        return service

    yield start
    for service in made:
        service.stop()


def ended(service: Service) -> Service:
    assert service.process is not None
    service.process.wait()
    return service


def spoken(service: Service) -> list[str]:
    """What a service that stays has said, as soon as it has said something."""
    lines: list[str] = []
    wait_for(service, lambda: bool(lines.extend(service.new_lines()) or lines), 30, print)
    return lines


def test_a_service_that_has_ended_is_named_with_its_last_words(make: Make) -> None:
    service = ended(make(f"{SPEAKS}; raise SystemExit(3)"))
    with pytest.raises(ServiceError) as error:
        service.check()
    assert str(error.value) == (
        f"worker ended with exit code 3. Its last words ({service.log}):\nfirst line\nlast line"
    )


def test_a_service_that_was_killed_is_named_with_the_signal(make: Make) -> None:
    service = ended(make("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    with pytest.raises(ServiceError, match="worker ended by SIGKILL"):
        service.check()


def test_the_words_of_an_earlier_start_are_not_told(make: Make) -> None:
    ended(make(SPEAKS))
    again = ended(make("pass"))
    assert "last line" in again.log.read_text()
    assert again.last_words() == "(none)"
    assert list(again.new_lines()) == []


def test_only_the_tail_of_a_long_log_is_told(make: Make) -> None:
    service = ended(make("print('long ' * 10_000); print('x' * 20_000); print('last')"))
    words = service.last_words().splitlines()
    assert words[-1] == "last"
    assert set("".join(words[:-1])) == {"x"}


def test_a_service_that_was_killed_can_be_started_again(make: Make) -> None:
    service = make(STAYS)
    spoken(service)
    service.kill()
    assert service.ended() == "by SIGKILL"
    service.start()
    assert service.ended() is None
    assert spoken(service) == ["worker  | here"]


def test_lines_from_before_a_restart_are_still_new(make: Make) -> None:
    service = ended(make(SPEAKS))
    service.start()
    ended(service)
    assert list(service.new_lines()) == ["worker  | first line", "worker  | last line"] * 2


def test_new_lines_are_told_once_each_with_the_name_of_the_service(make: Make) -> None:
    service = ended(make("print('worker  | a'); print('b'); print('unfinished', end='')"))
    assert list(service.new_lines()) == ["worker  | a", "worker  | b"]
    assert list(service.new_lines()) == []


def test_a_service_gets_its_environment_and_no_terminal(make: Make) -> None:
    code = "import os, sys; print(os.environ['GREETING'], os.getsid(0) == os.getpid())"
    assert ended(make(f"{code}; print(sys.stdin.read())")).last_words() == "hello True\n"


def test_stopping_ends_a_service_and_may_be_repeated(make: Make) -> None:
    service = make(STAYS)
    spoken(service)
    for _ in range(2):
        service.stop()
    with pytest.raises(ServiceError, match="ended by SIGTERM"):
        service.check()


def test_a_service_without_a_log_writes_to_our_output(capfd: pytest.CaptureFixture[str]) -> None:
    service = Service("worker", [sys.executable, "-c", SPEAKS], {})
    service.start()
    ended(service)
    assert capfd.readouterr().out == "first line\nlast line\n"
    assert (service.last_words(), list(service.new_lines())) == ("(none)", [])


def test_the_input_of_a_service_on_a_leash_lasts_as_long_as_its_parent() -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read(); print('left')"]
    service = Service("worker", command, {}, leash=True)
    service.start()
    assert service.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        service.process.wait(0.5)
    assert service.process.stdin is not None
    service.process.stdin.close()  # as the kernel does for a parent that was killed
    assert service.process.wait(30) == 0


def test_leftovers_are_ended_and_named(make: Make, tmp_path: Path) -> None:
    service = make(STAYS)
    spoken(service)
    Services([service], tmp_path / "services.json").remember()
    assert end_leftovers(tmp_path / "services.json") == ["worker"]
    ended(service)
    assert end_leftovers(tmp_path / "services.json") == []


def test_leftovers_are_known_also_after_the_clock_was_adjusted(make: Make, tmp_path: Path) -> None:
    service = make(STAYS)
    spoken(service)
    Services([service], tmp_path / "services.json").remember()
    (entry,) = json.loads((tmp_path / "services.json").read_text())
    entry["started"] += 1
    (tmp_path / "services.json").write_text(json.dumps([entry]))
    assert end_leftovers(tmp_path / "services.json") == ["worker"]


def test_a_leftover_is_ended_that_was_forked_and_not_yet_remembered(tmp_path: Path) -> None:
    """Who had it forked was killed just then."""
    server = ForkServer.start([], os.environ)
    service = Service("worker", [], {}, fork_server=server)
    Services([service], tmp_path / "services.json").remember()
    command = python_module("tests.deployments.forked", "until told")
    process = server.fork(command, os.environ, stdin=subprocess.PIPE)
    assert end_leftovers(tmp_path / "services.json") == []
    assert process.wait(30) == -signal.SIGTERM
    assert server.process is not None
    assert server.process.wait(30) == -signal.SIGTERM


def test_a_service_that_has_ended_is_not_remembered(make: Make, tmp_path: Path) -> None:
    gone, stays = ended(make("pass")), make(STAYS)
    Services([gone, stays], tmp_path / "services.json").remember()
    (entry,) = json.loads((tmp_path / "services.json").read_text())
    assert stays.process is not None
    assert entry["pid"] == stays.process.pid


def test_a_process_that_only_has_the_number_of_a_leftover_is_spared(
    make: Make, tmp_path: Path
) -> None:
    service = make(STAYS)
    Services([service], tmp_path / "services.json").remember()
    (entry,) = json.loads((tmp_path / "services.json").read_text())
    entry["started"] -= 1000
    (tmp_path / "services.json").write_text(json.dumps([entry]))
    assert end_leftovers(tmp_path / "services.json") == []
    assert psutil.pid_exists(entry["pid"])
    service.check()


def test_a_port_is_usable_if_nobody_listens_on_it() -> None:
    free = usable_port("127.0.0.1", 0, "--port")
    assert free > 0
    assert usable_port("127.0.0.1", free, "--port") == free
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free))
        listener.listen()
        with pytest.raises(ServiceError, match=f"127.0.0.1:{free} cannot be used.*--port"):
            usable_port("127.0.0.1", free, "--port")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, though processes that run tests for another one may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_that_arrives_while_a_service_is_started_waits_until_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen.__init__

    def interrupted(*args: Any, **kwargs: Any) -> None:
        start(*args, **kwargs)
        signal.raise_signal(signal.SIGINT)  # the process runs, and nobody knows it yet

    monkeypatch.setattr(subprocess.Popen, "__init__", interrupted)
    service = Service("sleep", ["sleep", "60"], {}, tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        service.start()
    assert service.process is not None
    service.kill()
