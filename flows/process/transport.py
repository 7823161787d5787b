"""Runs commands here, as another user, or on another machine by SSH."""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncssh

from flows.reports.text import printable
from fractal_models.errors import FractalError, UnavailableError

_CONNECT_SECONDS = 15.0
# A connection is given up after it was silent three times in a row for this long.
_KEEP_ALIVE_SECONDS = 10
_END_SECONDS = 5.0  # of a command that is told to end
# SLURM passes this umask on to jobs, so a strict umask of the server does not affect their files.
_UMASK = 0o022
_TELLS = 300  # characters of what a command said
# The program that answers may be anybody's, so memory is limited: of its output, to this size; of
# its standard error, to the last part.
LONGEST_ANSWER = 64 * 1024 * 1024
_LONGEST_WORDS = 64 * 1024
_PIECE = 64 * 1024

# Programs of users must not see the settings and secrets of the platform; they also inherit the
# environment of `sbatch`. And `sbatch` must not see variables that override its script.
_NOT_PASSED_ON = ("FRACTAL_", "PREFECT_", "SBATCH_")

# A site may allow its server to run only one program as other users: their Python. That runs the
# actual command.
_EXECUTE = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
_KILL_GROUP = "import os, sys; os.killpg(int(sys.argv[1]), 9)"


def variables_of_ours() -> list[str]:
    """The names of this process's environment variables that belong to the platform."""
    return [name for name in os.environ if name.startswith(_NOT_PASSED_ON)]


def environment_of_programs() -> dict[str, str]:
    """The environment of this process without the variables of the platform."""
    ours = variables_of_ours()
    return {name: value for name, value in os.environ.items() if name not in ours}


def program_of(command: Sequence[str]) -> str:
    """The name of the program that a command runs, also if the command is `env` with variables."""
    return next((word for word in command if word != "env" and "=" not in word), command[0])


class TransportError(UnavailableError):
    """A command could not be run, or it is not known how it ended. It may work later."""


class CommandError(FractalError):
    """A command ended with an exit code other than 0; the message contains what it said."""


class AnswerError(CommandError):
    """The answer of a command cannot be used; the message has the beginning of the answer."""


class NoAnswerError(CommandError):
    """The output contains something else than an answer; the message quotes it, with the exit code.

    The output may only have been disturbed, and the next try may give an answer, in particular if
    `exit_code` is 0.
    """

    def __init__(self, ended: "Completed") -> None:
        self.exit_code = ended.exit_code
        heard = " ".join(filter(None, (_told(ended.stdout), _told(ended.stderr[-_TELLS:]))))
        super().__init__(
            f"{program_of(ended.command)} gave no answer (exit code {ended.exit_code}), but: "
            f"{heard or 'nothing'}"
        )


@dataclass(frozen=True)
class Completed:
    """How a command ended, and what it wrote."""

    command: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        """What the command said, on one line, for people."""
        said = printable((self.stderr or self.stdout[-_LONGEST_WORDS:]).decode(errors="replace"))
        return " ".join(said.split())[-_TELLS:] or f"exit code {self.exit_code} and no word"

    def check(self) -> "Completed":
        """Return this object if the exit code is 0.

        Raises:
            CommandError: the exit code is not 0.
        """
        if self.exit_code != 0:
            raise CommandError(f"{program_of(self.command)} failed: {self.words}")
        return self


class Transport(Protocol):
    """Runs commands as one user on one machine. `place` names both, as 'user@host'."""

    place: str

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        """Run a command to its end. Only the last 64 KiB of its standard error are kept.

        Raises:
            TransportError: the command could not be run, or took longer than `seconds`.
            AnswerError: the command wrote more than `LONGEST_ANSWER` bytes.
        """
        ...

    async def close(self) -> None:
        """Release what is kept between commands."""
        ...


class LocalTransport:
    """Runs commands on this machine: as this user or, with `sudo -n`, as another user.

    `python` is an interpreter that this user may run as the other one. With it, sudo need not allow
    any other command, and a command that takes too long can be killed, which only the other user
    may do.
    """

    def __init__(self, user: str | None = None, python: str | None = None) -> None:
        self.place = "@".join([*([user] if user is not None else []), os.uname().nodename])
        # `--` ends the options of sudo.
        self._sudo = [] if user is None else ["sudo", "-n", "-H", "-u", user, "--"]
        self._python = None if user is None or python is None else (python, "-I", "-S", "-c")

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        """See `Transport.run`."""
        process = await self._start(command)
        try:
            async with asyncio.timeout(seconds):
                stdout, stderr = await _converse(command, stdin, *_pipes_of(process))
                await process.wait()
        except TimeoutError as error:
            raise TransportError(
                f"{program_of(command)} did not end within {seconds:g} s."
            ) from error
        finally:
            if process.returncode is None:
                await self._end(process)
        return Completed(tuple(command), process.returncode or 0, stdout, stderr)

    async def close(self) -> None:
        """Do nothing: nothing is kept between commands."""

    def prefix(self) -> list[str]:
        """The words to put before a command so that it runs as the user."""
        return [*self._sudo, *((*self._python, _EXECUTE) if self._python else ())]

    async def _start(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self.prefix(),
                *command,
                cwd="/",  # the other user may not enter the folder that this process is in
                env=environment_of_programs(),
                umask=_UMASK,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # a signal for this process is none for the command
            )
        except OSError as error:
            raise TransportError(
                f"{program_of(command)} cannot be started here: {error}"
            ) from error

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Kill a command and all its child processes.

        This process may have no right to kill what sudo started, so it is also killed as the other
        user.
        """
        if self._python is not None:
            kill = (*self._sudo, *self._python, _KILL_GROUP, str(process.pid))
            killing = await asyncio.create_subprocess_exec(
                *kill, cwd="/", env=environment_of_programs(), stderr=asyncio.subprocess.DEVNULL
            )
            await killing.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                for pipe in (process.stdout, process.stderr):
                    if pipe is not None:
                        await _end_of(pipe)
                await process.wait()


def _pipes_of(
    process: asyncio.subprocess.Process,
) -> tuple[asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamReader]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdin, process.stdout, process.stderr


class _Writer(Protocol):
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...


class _Reader(Protocol):
    async def read(self, n: int = -1) -> bytes: ...


async def _converse(
    command: Sequence[str], content: bytes, stdin: _Writer, stdout: _Reader, stderr: _Reader
) -> tuple[bytes, bytes]:
    """Send a command its input. Returns its whole output and the end of its standard error."""
    parts = (
        asyncio.create_task(_feed(stdin, content)),
        asyncio.create_task(_all_of(stdout, command)),
        asyncio.create_task(_end_of(stderr)),
    )
    try:
        _, output, errors = await asyncio.gather(*parts)
    finally:
        for part in parts:
            part.cancel()
    return output, errors


async def _feed(stdin: _Writer, content: bytes) -> None:
    """Write the whole input, unless the command ends without reading all of it."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(content)
        await stdin.drain()
        stdin.write_eof()


async def _all_of(stdout: _Reader, command: Sequence[str]) -> bytes:
    content = bytearray()
    while piece := await stdout.read(_PIECE):
        content += piece
        if len(content) > LONGEST_ANSWER:
            raise _too_long(command, f" It begins with: {_told(content)}")
    return bytes(content)


async def _end_of(output: _Reader) -> bytes:
    content = b""
    while piece := await output.read(_PIECE):
        content = (content + piece)[-_LONGEST_WORDS:]
    return content


def _too_long(command: Sequence[str], told: str = "") -> AnswerError:
    return AnswerError(
        f"{program_of(command)} wrote more than {LONGEST_ANSWER >> 20} MiB, which no answer has."
        f"{told}"
    )


def _told(content: bytes | bytearray) -> str:
    """The beginning of an answer, on one line, for people."""
    return " ".join(printable(content[:_TELLS].decode(errors="replace")).split())


class SSHTransport:
    """Runs commands over one SSH connection, which is kept, and made again when it is lost.

    `host` may include a port (`host:22`). The host's key must be in `known_hosts`.
    """

    def __init__(self, host: str, user: str, key_path: Path, known_hosts: Path) -> None:
        name, _, port = host.partition(":")
        self._host, self._port = name, int(port or 22)
        self._user = user
        self.place = f"{user}@{name}"
        self._key_path = key_path
        self._known_hosts = known_hosts
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        """See `Transport.run`."""
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connected()
                process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(
                    shlex.join(command), encoding=None
                )
                try:
                    stdout, stderr = await _converse(
                        command, stdin, process.stdin, process.stdout, process.stderr
                    )
                    await process.wait_closed()
                finally:
                    process.close()
        except (OSError, asyncssh.Error, TimeoutError) as error:
            await self.close()
            raise self._not_run(command, error) from error
        exit_code = self._exit_code(command, process.returncode)
        return Completed(tuple(command), exit_code, stdout, stderr)

    async def follow(self, command: Sequence[str], on_line: Callable[[str], object]) -> int:
        """Run a command that may take long. Calls `on_line` for each line; returns the exit code.

        The command must end when its standard input ends: that is how it is stopped if this
        coroutine is cancelled.

        Raises:
            TransportError: the command could not be run, or it is not known how it ended.
            AnswerError: the command wrote more than `LONGEST_ANSWER` bytes.
        """
        left = LONGEST_ANSWER
        try:
            connection = await self._connected()
            process = await connection.create_process(
                shlex.join(command), stderr=asyncssh.STDOUT, errors="replace"
            )
            try:
                while line := await process.stdout.readline():
                    left -= len(line)
                    if left < 0:
                        process.stdin.write_eof()
                        raise _too_long(command)
                    on_line(line.rstrip("\n"))
                await process.wait_closed()
            except asyncio.CancelledError:
                process.stdin.write_eof()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait_closed(), _END_SECONDS)
                raise
        except (OSError, asyncssh.Error) as error:
            await self.close()
            raise self._not_run(command, error) from error
        return self._exit_code(command, process.returncode)

    async def close(self) -> None:
        """Close the connection; the next command makes another."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncssh.connect(
                    self._host,
                    self._port,
                    username=self._user,
                    client_keys=[str(self._key_path)],
                    known_hosts=str(self._known_hosts.expanduser()),
                    agent_path=None,
                    config=None,
                    connect_timeout=_CONNECT_SECONDS,
                    keepalive_interval=_KEEP_ALIVE_SECONDS,
                )
        return self._connection

    def _not_run(self, command: Sequence[str], error: Exception) -> TransportError:
        return TransportError(
            f"{program_of(command)} could not be run by SSH as {self._user} on {self._host}, port "
            f"{self._port}: {str(error) or type(error).__name__}"
        )

    def _exit_code(self, command: Sequence[str], code: int | None) -> int:
        if code is None or code < 0:
            raise TransportError(
                f"{program_of(command)} ended on {self._host} with the connection."
            )
        return code
