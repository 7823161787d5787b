"""The programs of the embedded stack: how they are started, watched and ended."""

import abc
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.request import ProxyHandler, Request, build_opener

import psutil

from deployments.fork_server import ForkServer, ForkServerGoneError, Process
from deployments.prefect_settings import LOG_FORMAT, log_format, log_prefix
from fractal_models.errors import FractalError
from fractal_models.private_files import open_private, private_folder
from fractal_models.variables import SECRETS

_STOP_SECONDS = 90  # a worker waits for the units of its flow runs to end
_TAIL_BYTES = 16 * 1024
_TELL_SECONDS = 30
_FORK_SERVER = "fork server"
_DIRECTLY = build_opener(ProxyHandler({}))
_CLOCK_SECONDS = 10  # a process's start time seems to change when the clock is adjusted


class ServiceError(FractalError):
    """A service did not start, or has ended; the message names it and has its last output."""


class Part(abc.ABC):
    """A program that can be started and ended repeatedly; it logs to `log`, or our output."""

    name: str
    log: Path | None
    _begin: int = 0  # of this start, in the log

    @abc.abstractmethod
    def start(self) -> None: ...

    @property
    @abc.abstractmethod
    def pid(self) -> int | None:
        """The process id, if the program runs."""

    @abc.abstractmethod
    def ended(self) -> str | None:
        """How the program has ended; None if it has not."""

    @abc.abstractmethod
    def stop(self) -> None: ...

    @abc.abstractmethod
    def kill(self) -> None:
        """End the program as a crash would."""

    def check(self) -> None:
        """Raise ServiceError if the program has ended."""
        if (how := self.ended()) is not None:
            raise ServiceError(
                f"{self.name} ended {how}. Its last words ({self.log}):\n{self.last_words()}"
            )

    def last_words(self, lines: int = 15) -> str:
        """The end of what the program wrote since its last start."""
        if self.log is None or not self.log.exists():
            return "(none)"
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._begin, size - _TAIL_BYTES))
            words = log.read().decode(errors="replace").splitlines()[-lines:]
        return "\n".join(words) or "(none)"


@dataclass
class Service(Part):
    """A child process that writes to its own private log or, without one, to our output.

    It gets the environment of this process without secrets; the secrets that it needs are in its
    own `environment`. With `leash`, its standard input closes when this process ends, however it
    ends. It is forked from a fork server, if there is one, which it may then ask, too; or else
    started.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path | None = None
    leash: bool = False
    fork_server: ForkServer | None = field(default=None, repr=False)
    process: Process | None = field(default=None, repr=False)
    started: float = field(default=0.0, repr=False)  # in seconds since the epoch
    _begin: int = field(default=0, repr=False)
    _told: int = field(default=0, repr=False)

    def start(self) -> None:
        """Start the process in its own session, so that Ctrl-C in a terminal does not reach it."""
        if self.log is None:
            self._start(None)
            return
        private_folder(self.log.parent)
        with open_private(self.log, "ab") as log:
            self._begin = log.tell()
            if not self.started:
                self._told = self._begin
            self._start(log)

    def _start(self, output: IO[bytes] | None) -> None:
        self.started = time.time()
        environment = {**without_secrets(), **LOG_FORMAT, **self.environment}
        with _undisturbed():  # an interruption here could leave a process that nobody knows
            self.process = self._forked(environment, output) or subprocess.Popen(
                self.command,
                env={**environment, **log_format(log_prefix(self.name))},
                stdin=subprocess.PIPE if self.leash else subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                start_new_session=True,
            )

    def _forked(self, environment: dict[str, str], output: IO[bytes] | None) -> Process | None:
        if self.fork_server is None:
            return None
        stdin = subprocess.PIPE if self.leash else None
        try:
            return self.fork_server.fork(
                self.command,
                environment,
                name=self.name,
                stdin=stdin,
                output=output,
                may_fork=True,
            )
        except ForkServerGoneError:
            return None

    def tell(self, text: str) -> None:
        """Write a text to the standard input of the process, which has a leash, and close it."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended, and its log says why
                self.process.stdin.write(text.encode())
                self.process.stdin.close()

    def wait(self) -> int:
        """Wait until the process, which has been started, has ended; returns its exit code."""
        assert self.process is not None
        return self.process.wait()

    @property
    def pid(self) -> int | None:
        """See `Part.pid`."""
        return None if self.process is None or self.process.poll() is not None else self.process.pid

    def ended(self) -> str | None:
        """The exit code with which it has ended, or the signal."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"

    def stop(self) -> None:
        """End it with SIGTERM; with SIGKILL if it does not end, or if Ctrl-C is pressed again."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """End it as a crash would: with SIGKILL. Processes that it started live on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def new_lines(self) -> Iterator[str]:
        """The complete lines that it wrote since the last call, each beginning with its name."""
        if self.log is None:
            return
        name = log_prefix(self.name)
        with self.log.open("rb") as log:
            log.seek(self._told)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self._told += len(line)
                text = line.decode(errors="replace").rstrip()
                yield text if text.startswith(self.name) else name + text


def without_secrets() -> dict[str, str]:
    """The environment of this process without secrets."""
    return {name: value for name, value in os.environ.items() if name not in SECRETS}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """In the main thread, delay signals that would end this program to the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in numbers}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        for number in received[:1]:
            signal.raise_signal(number)


class Life:
    """Measures how long a program shows no sign of life: neither log nor CPU time grows."""

    def __init__(self, part: Part, clock: Callable[[], float] = time.monotonic) -> None:
        self._part = part
        self._clock = clock
        self._signs = signs_of_life(part)
        self._seen = clock()

    def quiet_seconds(self) -> float:
        """Seconds since the last sign of life."""
        if (signs := signs_of_life(self._part)) != self._signs:
            self._signs, self._seen = signs, self._clock()
        return self._clock() - self._seen


def signs_of_life(part: Part) -> tuple[int, float]:
    """The size of a part's log, and the CPU seconds of its processes, rounded to tenths."""
    size = part.log.stat().st_size if part.log is not None and part.log.exists() else 0
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(part.pid) if part.pid is not None else None
        for each in [process, *process.children(recursive=True)] if process else []:
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                seconds += times.user + times.system
    return size, round(seconds, 1)


def wait_for(
    part: Part, is_ready: Callable[[], bool], seconds: float, tell: Callable[[str], object]
) -> None:
    """Wait until a part is ready, as long as it shows signs of life; `tell` gets a line every 30 s.

    Raises:
        ServiceError: the part has shown no sign of life for this many seconds.
    """
    life, began, told = Life(part), time.monotonic(), 0
    while not is_ready():
        if life.quiet_seconds() > seconds:
            raise ServiceError(
                f"{part.name} is not ready, and has done nothing for {seconds:.0f} s. "
                f"Its last words ({part.log}):\n{part.last_words()}"
            )
        waited = time.monotonic() - began
        if waited // _TELL_SECONDS > told:
            told = int(waited // _TELL_SECONDS)
            tell(f"Waiting for {part.name} for {waited:.0f} s; it is at work. Its log: {part.log}")
        time.sleep(0.1)


def answers(url: str, auth: tuple[str, str] | None = None) -> bool:
    """Whether a GET of this URL is answered with success."""
    return answer(Request(url), auth) is not None


def answer(request: Request, auth: tuple[str, str] | None = None) -> bytes | None:
    """What a server of this machine answers, if it does, and with success.

    Not by httpx, which reads all certificates before each request.
    """
    if auth is not None:
        told = base64.b64encode(":".join(auth).encode()).decode()
        request.add_header("Authorization", f"Basic {told}")
    try:
        with _DIRECTLY.open(request, timeout=5) as response:
            return bytes(response.read())
    except (OSError, HTTPException):
        return None


def usable_port(host: str, port: int, option: str) -> int:
    """This port; if it is 0, a free one.

    Raises:
        ServiceError: the port is in use.
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


class Services:
    """The services of a stack, each after those that it needs, and what they are forked from.

    Which processes these are is saved in the file `path`, for `end_leftovers` after a kill.
    """

    def __init__(self, services: Sequence[Service], path: Path) -> None:
        self._services = {service.name: service for service in services}
        self._path = path

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    def start(self, name: str) -> None:
        """Start a service that has not been started, or has ended."""
        self._services[name].start()
        self.remember()

    def stop(self) -> None:
        """End all services, each before those that it needs."""
        for service in reversed(self._services.values()):
            service.stop()
        self._path.unlink(missing_ok=True)

    def remember(self) -> None:
        """Save which processes run, after the one from which they were forked."""
        fork_servers = dict.fromkeys(each.fork_server for each in self if each.fork_server)
        known = [
            *((_FORK_SERVER, each.process) for each in fork_servers),
            *((each.name, each.process) for each in self),
        ]
        processes = [
            {
                "name": name,
                "pid": process.pid,
                "started": psutil.Process(process.pid).create_time(),
            }
            for name, process in known
            if process is not None and process.poll() is None
        ]
        partial = self._path.with_name(f"{self._path.name}.partial")
        with open_private(partial, "w") as file:
            json.dump(processes, file)
        partial.replace(self._path)


def end_leftovers(path: Path) -> list[str]:
    """End services of an earlier start that was killed, in reverse order. Returns their names.

    At last, what forked them is ended, and before it what it has forked and nobody has saved.
    """
    if not path.exists():
        return []
    ended = []
    for entry in reversed(json.loads(path.read_text())):
        try:
            process = psutil.Process(entry["pid"])
            if abs(process.create_time() - entry["started"]) > _CLOCK_SECONDS:
                continue  # the process id now belongs to another process
            if entry["name"].startswith(_FORK_SERVER):
                for forked in process.children():
                    end(forked)
            else:
                ended.append(str(entry["name"]))
            end(process)
        except psutil.NoSuchProcess:
            continue
    path.unlink()
    return ended


def end(process: psutil.Process, number: signal.Signals = signal.SIGTERM) -> None:
    """End a process, which need not be a child, and wait for that; after 90 s it is killed."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
        deadline = time.monotonic() + _STOP_SECONDS
        while is_alive(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        if is_alive(process):
            process.kill()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs. (A process that has ended stays listed until its parent reaps it.)"""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
