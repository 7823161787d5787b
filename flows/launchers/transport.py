"""How commands reach the machine that a cluster is used from: here, as another user, by SSH."""

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

_CONNECT_SECONDS = 15.0
# A connection that is silent for so long, three times in a row, is given up.
_KEEP_ALIVE_SECONDS = 10
_END_SECONDS = 5.0  # of a command that is told to end
# SLURM hands it on to jobs: how strict the server is must not be felt in their files.
_UMASK = 0o022
_TELLS = 300  # characters of what a command said

# The settings and secrets of the platform are not for tasks, which inherit what `sbatch` sees; and
# variables that override what a script says, are not for `sbatch`.
_NOT_PASSED_ON = ("FRACTAL_", "PREFECT_", "SBATCH_")


class TransportError(Exception):
    """A command could not be run, or its end is not known; it may work later."""


class CommandError(Exception):
    """A command ended with another exit code than 0; the message has its own words."""


@dataclass(frozen=True)
class Completed:
    """How a command ended, and what it wrote."""

    command: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        """What it said, on one line, for people."""
        said = (self.stderr or self.stdout).decode(errors="replace").split()
        return " ".join(said)[-_TELLS:] or f"exit code {self.exit_code} and no word"

    def check(self) -> "Completed":
        """This, if the exit code is 0.

        Raises:
            CommandError: it is not.
        """
        if self.exit_code != 0:
            raise CommandError(f"{self.command[0]} failed: {self.words}")
        return self


class Transport(Protocol):
    """Runs commands, as one user, on one machine: `place` names both, as 'user@host'."""

    place: str

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        """Run a command to its end.

        Raises:
            TransportError: it could not be run, or took longer than so many seconds.
        """
        ...

    async def close(self) -> None:
        """Let go of what is kept between commands."""
        ...


class LocalTransport:
    """Runs commands on this machine: as this user or, by `sudo -n`, as another one."""

    def __init__(self, user: str | None = None) -> None:
        self.place = "@".join([*([user] if user is not None else []), os.uname().nodename])
        # `--` ends the options of sudo.
        self._prefix = ["sudo", "-n", "-H", "-u", user, "--"] if user is not None else []

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 60.0
    ) -> Completed:
        """See `Transport.run`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_PASSED_ON)}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._prefix,
                *command,
                cwd="/",  # the other user may not enter the folder that this process is in
                env=kept,
                umask=_UMASK,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # a signal for this process is none for the command
            )
        except OSError as error:
            raise TransportError(f"{command[0]} cannot be started here: {error}") from error
        try:
            async with asyncio.timeout(seconds):
                stdout, stderr = await process.communicate(stdin)
        except TimeoutError as error:
            raise TransportError(f"{command[0]} did not end within {seconds:g} s.") from error
        finally:
            if process.returncode is None:
                await _end(process)
        return Completed(tuple(command), process.returncode or 0, stdout, stderr)

    async def close(self) -> None:
        """There is nothing to let go of."""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a command with all that it started; what sudo started may not be ours to kill."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.communicate(), _END_SECONDS)


class SSHTransport:
    """Runs commands over one SSH connection, which is kept, and made anew when it is lost.

    `host` may name a port (`host:22`). Its key must be among the `known_hosts`.
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
                ended = await connection.run(shlex.join(command), input=stdin, encoding=None)
        except (OSError, asyncssh.Error, TimeoutError) as error:
            await self.close()
            raise self._not_run(command, error) from error
        exit_code = self._exit_code(command, ended.returncode)
        return Completed(tuple(command), exit_code, _bytes(ended.stdout), _bytes(ended.stderr))

    async def follow(self, command: Sequence[str], on_line: Callable[[str], object]) -> int:
        """Run a command that may take long, and hear each line of its output; its exit code.

        It must end when its standard input does: so it is told to when this is cancelled.

        Raises:
            TransportError: it could not be run, or its end is not known.
        """
        try:
            connection = await self._connected()
            process = await connection.create_process(
                shlex.join(command), stderr=asyncssh.STDOUT, errors="replace"
            )
            try:
                while line := await process.stdout.readline():
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
            f"{command[0]} could not be run by SSH as {self._user} on {self._host}, port "
            f"{self._port}: {str(error) or type(error).__name__}"
        )

    def _exit_code(self, command: Sequence[str], code: int | None) -> int:
        if code is None or code < 0:
            raise TransportError(f"{command[0]} ended on {self._host} with the connection.")
        return code


def _bytes(output: object) -> bytes:
    return output if isinstance(output, bytes) else b""
