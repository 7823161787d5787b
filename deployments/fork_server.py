"""Processes that are forked from one that has imported everything, instead of started anew.

Importing Prefect and the flows takes seconds and much memory. A process that is forked from one
that has done so takes milliseconds, and shares that memory. It does what `python -m MODULE ...`
does, which is to call `main` of the module: with an environment, a standard input and outputs of
its own, in a session of its own.

The fork server reads requests from its standard input. It ends when nobody can send any more; what
it has forked goes on.
"""

import atexit
import errno
import gc
import importlib
import json
import logging
import math
import multiprocessing
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import psutil
from setproctitle import getproctitle, setproctitle

from deployments.secrecy import keep_secrets
from fractal_models.errors import FractalError

# The length of a request, then a process id or minus the number of an error, then an exit code.
_NUMBER = struct.Struct("q")
_FORK, _LEARN = b"f", b"l"  # the kinds of requests
_EXIT_UNKNOWN = 255  # of a process whose fork server has ended before it
_LOOK_SECONDS, _PAUSE_SECONDS = 60.0, 0.05
_CLOSE_SECONDS = 5.0


class ForkServerGoneError(FractalError):
    """The fork server has ended."""


class ForkedProcess:
    """A process that a fork server has forked, with the methods of a `subprocess.Popen`."""

    def __init__(self, pid: int, reply: socket.socket, stdin: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None
        self._reply = reply
        self._reply.setblocking(False)
        self._hearing = threading.Lock()
        self._process: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        """The exit code, or minus the signal that has ended it; None if it has not ended."""
        with self._hearing:
            if self.returncode is None and (code := self._heard()) is not None:
                self.returncode = code
                self._reply.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: it has not ended after so many seconds.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            begun = time.monotonic()
            select.select([self._reply], [], [], min(left, _LOOK_SECONDS))
            if time.monotonic() - begun < _PAUSE_SECONDS and self.poll() is None:
                time.sleep(_PAUSE_SECONDS)  # the server has ended, the process has not
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def fileno(self) -> int:
        """A file that becomes readable when the process ends, or its fork server."""
        return self._reply.fileno()

    def _heard(self) -> int | None:
        """How the process has ended; from the kernel, if its server cannot tell any more."""
        try:
            if said := self._reply.recv(_NUMBER.size):
                return int(_NUMBER.unpack(said)[0])
        except BlockingIOError:
            return None
        except ConnectionResetError:
            pass
        lives = self._process is not None and self._process.is_running()
        return None if lives else _EXIT_UNKNOWN


Process = subprocess.Popen[bytes] | ForkedProcess


class ForkServer:
    """Forks processes. The requests of several of these objects, and processes, do not mix."""

    def __init__(self, channel: socket.socket, process: Process | None = None) -> None:
        self.process = process  # if this object has started it
        self._channel = self._imported = channel  # the second has something to read when it has

    @classmethod
    def start(
        cls,
        modules: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes] | None = None,
        forked_from: "ForkServer | None" = None,
    ) -> "ForkServer":
        """A fork server that imports these modules, with this environment.

        It can be forked itself from one that has imported them already.
        """
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", __name__, *modules]
        with theirs:
            if forked_from is not None:
                with suppress(ForkServerGoneError):
                    stdin = theirs.fileno()
                    forked = forked_from.fork(command, environment, stdin=stdin, output=output)
                    return cls(ours, forked)
            process: Process = subprocess.Popen(
                command,
                env=environment,
                stdin=theirs.fileno(),
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(ours, process)

    def fork(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        name: str | None = None,
        stdin: int | None = None,
        output: IO[bytes] | None = None,
        may_fork: bool = False,
    ) -> ForkedProcess:
        """Fork a process that does what this command of `python_module` does.

        Its name, which its log may tell, is `name`, or that of this process. Its standard input is
        `stdin`, a pipe (`subprocess.PIPE`) or nothing; its output goes to `output` or where ours
        goes. With `may_fork`, it can ask this server too: see `inherited`.

        Raises:
            ForkServerGoneError: the server has ended.
            OSError: it cannot fork, e.g. as there are too many processes.
        """
        outputs = [1, 2] if output is None else [output.fileno()] * 2
        others = [self._channel.fileno()] if may_fork else []
        name = name or multiprocessing.current_process().name
        asked = _Request(name, list(command), dict(environment))
        if stdin == subprocess.PIPE:
            read, write = os.pipe()
            pipe: IO[bytes] | None = os.fdopen(write, "wb", buffering=0)
        else:
            read, pipe = os.dup(stdin) if stdin is not None else _nothing(), None
        try:
            pid, reply = self._ask(asked, [read, *outputs, *others])
        finally:
            os.close(read)
        return ForkedProcess(pid, reply, pipe)

    def learn(self, modules: Sequence[str]) -> None:
        """Have the server import more modules, as soon as it has done what it was asked for.

        Raises:
            ForkServerGoneError: it has ended.
        """
        self._imported = self._send(_LEARN, json.dumps(modules).encode(), [])

    def is_ready(self, seconds: float) -> bool:
        """Whether it has imported everything, after so many seconds at most.

        Raises:
            ForkServerGoneError: it has ended.
        """
        readable, *_ = select.select([self._imported], [], [], seconds)
        if readable and not self._imported.recv(1, socket.MSG_PEEK):  # so that others see it too
            raise ForkServerGoneError("The fork server has ended before it was ready.")
        return bool(readable)

    def close(self) -> None:
        """Let the server end, unless others can ask it, and wait for that."""
        self._channel.close()
        self._imported.close()
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_CLOSE_SECONDS)

    def kill(self) -> None:
        """End the server, which this object has started, also while it imports.

        What it has forked goes on.
        """
        assert self.process is not None
        self.process.kill()
        self.close()

    def _ask(self, request: "_Request", files: list[int]) -> tuple[int, socket.socket]:
        """The id of the process, and where its end will be told."""
        content = json.dumps([request.name, request.command, request.environment]).encode()
        ours = self._send(_FORK, content, files)
        try:
            said = ours.recv(_NUMBER.size, socket.MSG_WAITALL)
        except OSError as error:
            ours.close()
            raise ForkServerGoneError(f"The fork server has ended: {error}") from error
        if not said:
            ours.close()
            raise ForkServerGoneError("The fork server has ended while it was asked.")
        (number,) = _NUMBER.unpack(said)
        if number < 0:
            ours.close()
            raise OSError(-number, f"{os.strerror(-number)}: a process cannot be forked")
        return int(number), ours

    def _send(self, kind: bytes, content: bytes, files: list[int]) -> socket.socket:
        """Send a request; returns where the answer comes from."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # One byte with a file: what several processes send at the same time does not mix.
                socket.send_fds(self._channel, [kind], [theirs.fileno()])
            socket.send_fds(ours, [_NUMBER.pack(len(content))], files)
            ours.sendall(content)
        except OSError as error:
            ours.close()
            raise ForkServerGoneError(f"The fork server has ended: {error}") from error
        return ours


def _nothing() -> int:
    return os.open(os.devnull, os.O_RDONLY)


# The server from which this process was forked, if it may ask it.
inherited: ForkServer | None = None
# The process id of the server, in itself and in what it forks.
server_pid: int | None = None
# How this process ends, if it was forked.
_exit_code: int | None = None


@dataclass
class _Request:
    """What a fork is to do: `python -m MODULE ...`, with these standard files."""

    name: str
    command: list[str]
    environment: dict[str, str]
    files: Sequence[int] = ()

    def become(self) -> None:
        """Do it, in this process."""
        global inherited, _exit_code
        os.setsid()
        for number, file in enumerate(self.files[:3]):
            os.dup2(file, number)
        for file in self.files[:3]:
            os.close(file)
        inherited = None
        for file in self.files[3:]:
            inherited = ForkServer(socket.socket(fileno=file))
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.environment)
        _read_settings_again(before)
        setproctitle(" ".join(self.command))
        multiprocessing.current_process().name = self.name
        _, _, module, *arguments = self.command
        sys.argv[1:] = arguments
        _exit_code = 1
        try:
            importlib.import_module(module).main()
        except SystemExit as end:
            _exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
            raise
        _exit_code = 0


def _read_settings_again(before: Mapping[str, str]) -> None:
    """Have Prefect read the variables from which it has its settings, if they have changed."""
    changed = {
        name
        for name, _ in before.items() ^ os.environ.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }
    if changed and "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context
        from prefect.logging.configuration import setup_logging

        refresh_global_settings_context()
        if any(name.startswith("PREFECT_LOGGING_") for name in changed):
            setup_logging(incremental=False)


def main() -> None:
    """Import the modules that are named, then fork until nobody asks any more."""
    global server_pid
    server_pid = os.getpid()
    atexit.register(_leave)  # what is registered first is called last
    getproctitle()  # which finds what can be set, while all is as it was
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(nothing := _nothing(), 0)
    os.close(nothing)
    keep_secrets()
    _import(sys.argv[1:])
    channel.sendall(b"r")
    if (request := _serve(channel)) is not None:
        request.become()


def _import(modules: Sequence[str]) -> None:
    """Import modules, of which nearly all that survives a collection of garbage stays for good.

    The garbage collector looks at that once: to look again and again takes a third of the time of
    the imports, and in a fork it copies all that memory.
    """
    gc.callbacks.append(_freeze)
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.callbacks.remove(_freeze)


def _freeze(phase: str, _: object) -> None:
    if phase == "stop":
        gc.freeze()


def _leave() -> None:
    """End a fork, after all other exit functions.

    The interpreter would go through all that is shared to free it, and so copy it.
    """
    if _exit_code is not None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(_exit_code)


def _serve(channel: socket.socket) -> _Request | None:
    """Fork when asked; returns a request in each fork, and in the server None at the end."""
    ended, note_end = os.pipe()
    for end in (ended, note_end):
        os.set_blocking(end, False)
    handlers: dict[int, Any] = {
        signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    signal.set_wakeup_fd(note_end)
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            asks = [key.fileobj is channel for key, _ in selector.select()]
            if not all(asks):
                os.read(ended, 1 << 16)
                _tell_ends(running)
            if not any(asks):
                continue
            if (heard := _hear(channel)) is None:
                return None
            kind, asked = heard
            if kind == _LEARN:
                _learn(asked)
            elif (request := _fork(asked, running)) is not None:
                signal.set_wakeup_fd(-1)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                for file in (channel, *running.values()):
                    file.close()
                for end in (ended, note_end):
                    os.close(end)
                return request


def _learn(asked: socket.socket) -> None:
    """Import for who has asked there, and say when that is done."""
    with asked:
        if (read := _read(asked)) is not None:
            modules, _ = read
            _import(modules)
            _say(asked, 0)


def _fork(asked: socket.socket, running: dict[int, socket.socket]) -> _Request | None:
    """Fork for who has asked there; returns the request in the fork."""
    if (read := _read(asked)) is None:
        asked.close()
        return None
    (name, command, environment), files = read
    request = _Request(name, command, environment, files)
    try:
        pid = os.fork()
    except OSError as error:
        _say(asked, -(error.errno or errno.EAGAIN))
        asked.close()
    else:
        if pid == 0:
            asked.close()
            return request
        running[pid] = asked
        _say(asked, pid)
    for file in request.files:
        os.close(file)
    return None


def _hear(channel: socket.socket) -> tuple[bytes, socket.socket] | None:
    """The kind of the next request, and where it comes from; None if nobody can send one."""
    with suppress(ConnectionResetError):  # nobody has read that we are ready
        kind, files, *_ = socket.recv_fds(channel, 1, 1)
        if kind:
            return kind, socket.socket(fileno=files[0])
    return None


def _read(asked: socket.socket) -> tuple[Any, list[int]] | None:
    """What is asked for, and the files that come with it; None if who asks has ended."""
    with suppress(OSError):
        head, files, *_ = socket.recv_fds(asked, _NUMBER.size, 4)
        if head:
            (length,) = _NUMBER.unpack(head)
            content = asked.recv(length, socket.MSG_WAITALL)
            if len(content) == length:
                return json.loads(content), files
    return None


def _tell_ends(running: dict[int, socket.socket]) -> None:
    """Tell those who asked for processes that have ended."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if (asked := running.pop(pid, None)) is not None:
                _say(asked, os.waitstatus_to_exitcode(status))
                asked.close()


def _say(asked: socket.socket, number: int) -> None:
    with suppress(OSError):  # who asked has ended
        asked.sendall(_NUMBER.pack(number))


if __name__ == "__main__":
    from deployments import fork_server

    fork_server.main()
