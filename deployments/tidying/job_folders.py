"""Folders of jobs on this machine, and their archives beside them."""

import asyncio
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.tidying.amount import NOTHING, Amount
from flows.launchers.slurm.kept_folders import remove_folders
from flows.process.transport import CommandError, LocalTransport, TransportError
from flows.programs import cluster_files
from flows.units.job_folder import archive_path
from fractal_models.tables import JobV2, Profile, Resource, UserOAuth

# The rows of so many jobs are locked while their folders are removed: none is retried meanwhile.
_AT_ONCE = 20
_NAME = re.compile(r"proj_.*_job_(\d+)_\d{8}_\d{6}(\.zip)?")


@dataclass
class Tidied:
    """Folders and archives that were removed, or would be; and what could not be."""

    folders: Amount = NOTHING
    archives: Amount = NOTHING
    left: list[str] = field(default_factory=list)


async def tidy_job_folders(
    sessions: async_sessionmaker[AsyncSession],
    resources: Sequence[Resource],
    before: datetime,
    *,
    dry_run: bool,
) -> Tidied:
    """Remove the folders and archives of jobs that ended before then."""
    tidied = Tidied()
    for resource in {each.jobs_local_dir: each for each in resources}.values():
        ids = iter(sorted(await asyncio.to_thread(_jobs_in, Path(resource.jobs_local_dir))))
        while some := list(islice(ids, _AT_ONCE)):
            async with sessions() as session, session.begin():
                for folder, username in await _ended(session, some, before, dry_run=dry_run):
                    if folder.parent == Path(resource.jobs_local_dir):
                        await _tidy(folder, _Owner(resource, username), tidied, dry_run=dry_run)
    return tidied


def _jobs_in(jobs_local_dir: Path) -> set[int]:
    """The ids of the jobs that have a folder or an archive there, also of a fractal-server."""
    try:
        names = [each.name for each in jobs_local_dir.iterdir()]
    except FileNotFoundError:
        return set()
    return {int(found[1]) for name in names if (found := _NAME.fullmatch(name))}


async def _ended(
    session: AsyncSession, ids: Sequence[int], before: datetime, *, dry_run: bool
) -> list[tuple[Path, str | None]]:
    """The folders of those of these jobs that ended before then, and the OS users of their units.

    Unless it is a dry run, the jobs stay as they are to the end of the transaction.
    """
    ended = (
        select(JobV2.working_dir, Profile.username)
        .outerjoin(UserOAuth, col(UserOAuth.email) == col(JobV2.user_email))
        .outerjoin(Profile, col(Profile.id) == col(UserOAuth.profile_id))
        .where(
            col(JobV2.id).in_(ids),
            col(JobV2.working_dir).is_not(None),
            JobV2.status != "submitted",
            col(JobV2.end_timestamp) < before,
        )
    )
    if not dry_run:
        ended = ended.with_for_update(key_share=True, skip_locked=True, of=JobV2)
    return [(Path(str(folder)), username) for folder, username in await session.exec(ended)]


@dataclass(frozen=True)
class _Owner:
    """To whom the files of units belong: on a local resource, perhaps to another OS user."""

    resource: Resource
    username: str | None

    async def remove_own(self, folders: Iterable[Path]) -> None:
        """Have that user remove what it has in these folders."""
        if self.resource.type != "local" or self.username is None:
            return
        config = self.resource.tasks_python_config
        python = str(config["versions"][config["default_version"]])
        paths = [PurePosixPath(folder) for folder in folders]
        await remove_folders(LocalTransport(self.username), python, paths)


async def _tidy(folder: Path, owner: _Owner, tidied: Tidied, *, dry_run: bool) -> None:
    archive = archive_path(folder)
    of_folder = await asyncio.to_thread(_size_of, folder)
    of_archive = await asyncio.to_thread(_size_of, archive)
    try:
        if not dry_run:
            await _remove(folder, owner)
            archive.unlink(missing_ok=True)
    except (OSError, TransportError, CommandError) as error:
        tidied.left.append(f"{folder}: {error}")
        return
    tidied.folders += of_folder
    tidied.archives += of_archive


def _size_of(path: Path) -> Amount:
    """One, with the room that it takes; nothing if it is not there."""
    if path.is_dir():
        return Amount(1, cluster_files.size(str(path)))
    return Amount(1, path.stat().st_size) if path.exists() else NOTHING


async def _remove(folder: Path, owner: _Owner) -> None:
    """Remove a job's folder.

    Raises:
        OSError, TransportError, CommandError: something in it cannot be removed.
    """
    if not folder.exists():
        return
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if folder.exists():
        await owner.remove_own(each for each in folder.iterdir() if each.is_dir())
        await asyncio.to_thread(shutil.rmtree, folder)
