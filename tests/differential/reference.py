"""`fractal-server`, the reference, in an environment of its own, for comparisons with it."""

import asyncio
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from sqlalchemy import URL

from deployments.services import Service, usable_port
from fractal_models.schemas.base import CONTRACT_VERSION

ADMIN, PASSWORD = "benchmark@example.org", "of the benchmark"
SECRET = "a secret of the benchmark, of 32 characters or more"
_UV = str(Path(sys.executable).with_name("uv"))
_START_SECONDS = 60


class NoReferenceError(Exception):
    """The reference cannot be had; the message says why."""


@dataclass(frozen=True)
class Reference:
    """A running `fractal-server`."""

    api_url: str
    database: URL
    folder: Path
    service: Service


def find_python() -> str:
    """A Python that the reference runs on, 3.12 or newer.

    Raises:
        NoReferenceError: there is none.
    """
    found = subprocess.run(
        [_UV, "python", "find", "--no-python-downloads", "--no-project", "--system", ">=3.12"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 0:
        return found.stdout.strip()
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for minor in (12, 13, 14):
        for python in sorted(versions.glob(f"3.{minor}.*/bin/python"), reverse=True):
            return str(python)
    raise NoReferenceError("fractal-server needs Python 3.12 or newer, and none is found.")


def installed_reference(python: str | None = None) -> Path:
    """The folder of an environment with the reference, in the user's cache; made if need be.

    Raises:
        NoReferenceError: there is no Python for it, or it cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fractal-prefect"
    venv = cache / f"fractal-server-{CONTRACT_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = venv / ".ready"
        if not ready.exists():
            chosen = python or find_python()
            _run([_UV, "venv", "--quiet", "--clear", "--no-python-downloads", "-p", chosen, venv])
            package = f"fractal-server=={CONTRACT_VERSION}"
            install = [_UV, "pip", "install", "--quiet", "--compile-bytecode"]
            _run([*install, "--python", venv / "bin/python", package])
            ready.touch()
    return venv


@contextmanager
def running_reference(
    postgres: URL, folder: Path, python: str | None = None, kind: str = "local"
) -> Iterator[Reference]:
    """The reference, with a database `reference` on this PostgreSQL server, and an administrator.

    All resources that are made in it are of one kind; the administrator has a local one.

    Raises:
        NoReferenceError: it cannot be installed or started.
    """
    folder.mkdir()
    database = postgres.set(database="reference")
    make_database(database, python)
    options = ["--resource", "default", "--profile", "default", "--admin-email", ADMIN]
    options += ["--admin-pwd", PASSWORD, "--admin-project-dir", str(folder / "projects")]
    _fractalctl(database, folder, python, "init-db-data", *options)
    with started_reference(database, folder, python, kind) as reference:
        yield reference


def make_database(database: URL, python: str | None = None) -> None:
    """Make a database with the tables of the reference, in place of one of this name.

    Raises:
        NoReferenceError: the reference cannot be installed, or fails.
    """
    asyncio.run(_create_database(database))
    _fractalctl(database, Path(tempfile.gettempdir()), python, "set-db")


def downgrade(database: URL, revision: str) -> None:
    """Take the tables back to what an older version of the reference made."""
    (package,) = installed_reference().glob("lib/*/site-packages/fractal_server")
    alembic = installed_reference() / "bin/alembic"
    command = [alembic, "-c", package / "alembic.ini", "downgrade", revision]
    _run(command, cwd=tempfile.gettempdir(), env=_environment(database))


@contextmanager
def started_reference(
    database: URL, folder: Path, python: str | None = None, kind: str = "local"
) -> Iterator[Reference]:
    """The reference on a database that it has made.

    Raises:
        NoReferenceError: it does not start.
    """
    port = usable_port("127.0.0.1", 0, "--port")
    command = [_program(python), "start", "--port", str(port)]
    environment = {**_environment(database), "FRACTAL_RUNNER_BACKEND": kind}
    service = Service("reference", command, environment, folder / "log")
    service.start()
    try:
        _wait_for(service, f"http://127.0.0.1:{port}/api/alive/")
        yield Reference(f"http://127.0.0.1:{port}", database, folder, service)
    finally:
        service.stop()


def _program(python: str | None) -> str:
    return str(installed_reference(python) / "bin/fractalctl")


def _environment(database: URL) -> dict[str, str]:
    return {
        **os.environ,
        "POSTGRES_HOST": str(database.query.get("host") or database.host),
        "POSTGRES_USER": database.username or "postgres",
        "POSTGRES_DB": str(database.database),
        "JWT_SECRET_KEY": SECRET,
        "JWT_EXPIRE_SECONDS": "36000",
        "FRACTAL_DEFAULT_GROUP_NAME": "All",
        "FRACTAL_ENABLE_TASK_GROUP_RESET": "true",
        "FRACTAL_LOGGING_LEVEL": "30",
    }


def _fractalctl(database: URL, folder: Path, python: str | None, *arguments: str) -> None:
    _run([_program(python), *arguments], cwd=folder, env=_environment(database))


def _run(command: list[Any], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        told = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise NoReferenceError(f"{' '.join(map(str, command))} failed:\n{told}")


async def _create_database(database: URL) -> None:
    server = database.set(drivername="postgresql", database="postgres")
    connection = await asyncpg.connect(server.render_as_string(hide_password=False))
    await connection.execute(f"DROP DATABASE IF EXISTS {database.database} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {database.database}")
    await connection.close()


def _wait_for(service: Service, url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(url).is_success:
                return
        service.check()
        time.sleep(0.1)
    raise NoReferenceError(
        f"fractal-server does not answer. Its last words:\n{service.last_words()}"
    )
