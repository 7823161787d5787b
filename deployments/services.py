"""The programs that the embedded stack consists of: started, watched and ended as one."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

_STOP_SECONDS = 90  # a worker waits for its flow runs to end their units


class ServiceError(Exception):
    """A service did not start or did not live; the message says which, and what it last said."""


@dataclass
class Service:
    """A child process that writes to a log file of its own."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C in the terminal is not for it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises ServiceError if it has ended."""
        if self.process is not None and (code := self.process.poll()) is not None:
            raise ServiceError(
                f"{self.name} ended with exit code {code}. Its last words ({self.log}):\n"
                f"{last_lines(self.log)}"
            )

    def stop(self) -> None:
        """End it with SIGTERM, and with SIGKILL if it does not."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_until(ready: Callable[[], bool], services: Sequence[Service], seconds: float) -> None:
    """Return when `ready`.

    Raises:
        ServiceError: one of the services ended, or time is up.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        for service in services:
            service.check()
        if time.monotonic() > deadline:
            told = "\n".join(f"{s.name} ({s.log}):\n{last_lines(s.log)}" for s in services)
            raise ServiceError(f"Not ready after {seconds:.0f} s. Last words:\n{told}")
        time.sleep(0.1)


def answers(url: str, auth: tuple[str, str] | None = None) -> bool:
    """Whether a GET of this URL is answered with 200."""
    try:
        return httpx.get(url, auth=auth, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def last_lines(path: Path, lines: int = 15) -> str:
    """The end of a log file."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def usable_port(host: str, port: int, option: str) -> int:
    """The port, or a free one for 0.

    Raises:
        ServiceError: it is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(
                f"{host}:{port} cannot be used ({error.strerror}): end the program that has it, "
                f"or choose another port with {option} (0 takes a free one)."
            ) from error
        return int(probe.getsockname()[1])


def remember(services: Sequence[Service], path: Path) -> None:
    """Write down which processes belong to the stack, for `end_leftovers`."""
    processes = [
        {
            "name": s.name,
            "pid": s.process.pid,
            "started": psutil.Process(s.process.pid).create_time(),
        }
        for s in services
        if s.process is not None
    ]
    path.write_text(json.dumps(processes))


def end_leftovers(path: Path) -> list[str]:
    """End services of an earlier start whose parent was killed; their names."""
    if not path.exists():
        return []
    ended = []
    for entry in json.loads(path.read_text()):
        try:
            process = psutil.Process(entry["pid"])
            if process.create_time() != entry["started"]:
                continue  # the number was given to another process since
            process.terminate()
            process.wait(_STOP_SECONDS)
            ended.append(str(entry["name"]))
        except psutil.NoSuchProcess:
            continue
    path.unlink()
    return ended


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
