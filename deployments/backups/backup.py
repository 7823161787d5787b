"""A backup of an installation, and how it is restored.

It has the databases, the environments of tasks, and the secrets of a `fractal-prefect up` or the
folder with the settings of other installations; no images, and folders of jobs only if asked for.
It is made while all runs. Paths in the databases are absolute, so folders are restored to where
they were.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import asyncpg
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import URL

from deployments.backups.dumps import (
    DumpError,
    Programs,
    embedded_programs,
    require_empty,
    server_version,
)
from deployments.data_dir import locked
from deployments.installation import Installation
from deployments.postgres import embedded_postgres
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


@dataclass(frozen=True)
class About:
    """What a backup has. `data_dir` is that of an `up`, `postgres` the version of the server."""

    version: str
    data_dir: str | None
    folders: list[str]
    settings: str | None = None
    postgres: int = 0

    @property
    def inside(self) -> list[str]:
        """Folders and settings as they are named in the backup."""
        return [path.lstrip("/") for path in (*self.folders, self.settings) if path]


def back_up(
    installation: Installation,
    file: Path,
    tell: Tell,
    *,
    settings: Path | None = None,
    job_folders: bool = False,
) -> None:
    """Write a backup into a file, which is private; with a folder or file that has the settings.

    Raises:
        BackupError, DumpError: it cannot be made; the file is not there then.
    """
    if settings is not None and installation.data_dir is not None:
        raise BackupError("A `fractal-prefect up` has no settings elsewhere: leave out --settings.")
    programs = Programs() if installation.data_dir is None else embedded_programs()
    databases = _databases(installation)
    server = max(asyncio.run(server_version(databases[name])) for name in _DUMPS)
    programs.require_for("pg_dump", server)
    about = About(
        version=version("fractal-prefect"),
        data_dir=_text(installation.data_dir),
        folders=asyncio.run(_folders_of(databases["fractal"], job_folders=job_folders)),
        settings=_text(settings and settings.absolute()),
        postgres=server,
    )
    partial = file.with_name(f"{file.name}.partial")
    try:
        with (
            tempfile.TemporaryDirectory(dir=file.absolute().parent) as work,
            open_private(partial, "wb"),
        ):
            members = [_ABOUT, *map(_dump, _DUMPS)]
            Path(work, _ABOUT).write_text(json.dumps(asdict(about)))
            for name in _DUMPS:
                programs.dump(databases[name], Path(work, _dump(name)))
                tell(f"The database of {name.capitalize()} is dumped.")
            if installation.data_dir is not None:
                shutil.copyfile(installation.data_dir / _SECRETS, Path(work, _SECRETS))
                members.append(_SECRETS)
            _tar("--create", "--file", partial, "-C", work, *members, "-C", "/", *about.inside)
        partial.replace(file)
    except OSError as error:
        raise BackupError(f"The backup cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    for path in about.inside:
        tell(f"It has /{path}.")


def read_about(file: Path) -> About:
    """What a backup has.

    Raises:
        BackupError: the file is none.
    """
    try:
        told = _tar("--extract", "--to-stdout", "--file", file, _ABOUT)
        return TypeAdapter(About).validate_json(told)
    except (BackupError, ValidationError) as error:
        raise BackupError(f"{file} is no backup of fractal-prefect. ({error})") from error


def restore_up(file: Path, about: About, tell: Tell) -> Path:
    """Make the data directory of a `fractal-prefect up` anew. Returns its path.

    Raises:
        BackupError, DumpError: it cannot be restored; nothing was changed.
    """
    data_dir = Path(str(about.data_dir))
    made = [data_dir, *map(Path, about.folders)]
    _require_free(made)
    with (
        _removed_on_failure(made),
        locked(data_dir),
        _extracted(file, data_dir, [_SECRETS, *map(_dump, _DUMPS)]) as work,
    ):
        with open_private(data_dir / _SECRETS, "wb") as secrets:
            secrets.write((work / _SECRETS).read_bytes())
        with embedded_postgres(data_dir / "postgres") as postgres:
            for name in _DUMPS:
                embedded_programs().restore(work / _dump(name), getattr(postgres, name))
                tell(f"The database of {name.capitalize()} is restored.")
        _restore_folders(file, about.folders, tell)
    return data_dir


def restore_into(file: Path, about: About, installation: Installation, tell: Tell) -> None:
    """Fill the empty databases of an installation, and make its folders anew.

    Settings that are there already stay as they are.

    Raises:
        BackupError, DumpError: it cannot be restored; the message says if anything was changed.
    """
    programs, databases = Programs(), _databases(installation)
    for database in databases.values():
        _require_fit(programs, about, database)
    folders = [Path(folder) for folder in about.folders]
    _require_free(folders)
    if about.settings is not None and not Path(about.settings).exists():
        folders.append(Path(about.settings))
    with (
        _removed_on_failure(folders),
        _extracted(file, file.absolute().parent, list(map(_dump, _DUMPS))) as work,
    ):
        _restore_folders(file, [str(folder) for folder in folders], tell)
        restored = ""
        for name, database in databases.items():
            try:
                programs.restore(work / _dump(name), database)
            except DumpError as error:
                raise BackupError(f"{error}{restored}") from error
            tell(f"The database of {name.capitalize()} is restored.")
            restored = f" The database {database.database!r} was restored: make it anew."


def _databases(installation: Installation) -> dict[str, URL]:
    fractal = installation.settings.async_database_url
    databases = {"fractal": fractal, "prefect": installation.prefect_database}
    return {name: databases[name] for name in _DUMPS}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _dump(name: str) -> str:
    return f"{name}.dump"


def _require_fit(programs: Programs, about: About, database: URL) -> None:
    asyncio.run(require_empty(database))
    server = asyncio.run(server_version(database))
    programs.require_for("pg_restore", max(server, about.postgres))
    if server < about.postgres:
        raise BackupError(
            f"The backup is of PostgreSQL {about.postgres}, and the database "
            f"{database.database!r} of {server}: restore it into {about.postgres} or newer."
        )


def _require_free(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise BackupError(f"{path} exists, where the backup has something: move it away first.")


@contextmanager
def _extracted(file: Path, place: Path, members: Sequence[str]) -> Iterator[Path]:
    """A folder with these members of a backup, during the block.

    Raises:
        BackupError: they cannot be written there.
    """
    try:
        folder = tempfile.TemporaryDirectory(dir=place)
    except OSError as error:
        raise BackupError(f"{file} cannot be unpacked in {place}: {error.strerror}.") from error
    with folder as work:
        _tar("--extract", "--file", file, "-C", work, *members)
        yield Path(work)


def _restore_folders(file: Path, folders: Sequence[str], tell: Tell) -> None:
    if folders:
        inside = [folder.lstrip("/") for folder in folders]
        _tar("--extract", "--file", file, "-C", "/", "--preserve-permissions", *inside)
        tell(f"Restored: {', '.join(folders)}.")


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


def _tar(*arguments: object) -> str:
    """Run `tar`, which may find that files have just changed. What it writes."""
    command = ["tar", "--warning=no-file-changed", "--ignore-failed-read", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode > 1 or (done.returncode == 1 and "--create" not in arguments):
        raise BackupError(f"tar fails: {' '.join(done.stderr.split())}")
    return done.stdout
