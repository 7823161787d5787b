"""What a job leaves, for readers: logs as texts that a browser can show, and the archive."""

import asyncio
import errno
import os
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from flows.reports.sentences import phrase, words_of
from flows.units.job_folder import JOB_LOG, archive_path, write_archive
from flows.units.left_files import end_of, last_lines, open_left, two_ends
from fractal_models.tables import JobV2

MAX_BYTES = 1 << 20
_MOST_OF_A_MEMBER = 256 << 20  # it must be unpacked to be read
_MOST_FOR_AN_END = 2 << 20  # where many are read
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
_NOT_READABLE = (OSError, KeyError, ValueError, *_NO_ARCHIVE)


async def read_log(path: Path, *, folder: Path | None) -> str:
    """The text of a log in a job's folder, read in a thread; of a long log, the beginning and end.

    If the folder was removed, the log is read from the job's archive. `folder` is None for a log
    that belongs to no job. If the file does not exist or cannot be read, the returned text says so.
    """
    return await asyncio.to_thread(_read, path, folder)


async def log_so_far(job: JobV2) -> str | None:
    """The log of a job that has not ended: the log in its folder, then the reasons why it waits."""
    path = Path(job.working_dir or "", JOB_LOG)
    if job.working_dir is None or not await asyncio.to_thread(path.is_file):
        return job.log
    return f"{await read_log(path, folder=path.parent)}{job.log or ''}"


async def ends_of_logs(paths: Collection[Path], folder: Path, lines: int) -> dict[Path, str]:
    """The last lines of logs in a job's folder, or in its archive if the folder was removed.

    What cannot be read is left out.
    """
    return await asyncio.to_thread(_ends, paths, folder, lines)


def _ends(paths: Collection[Path], folder: Path, lines: int) -> dict[Path, str]:
    if folder.is_dir():
        return {path: last_lines(path, lines, below=folder) for path in paths}
    ends = {}
    with suppress(*_NOT_READABLE), _archived(folder) as members:
        for path in paths:
            with suppress(*_NOT_READABLE):
                ends[path] = end_of(_member(members, path, folder, _MOST_FOR_AN_END), lines)
    return ends


def open_zip(folder: Path) -> IO[bytes]:
    """The archive of a folder. If there is none, it is made now, and deleted when it is closed.

    Raises:
        OSError: neither archive nor folder exists, or they cannot be read or written.
    """
    archive = archive_path(folder)
    with suppress(FileNotFoundError):
        return open_left(archive, below=archive.parent)
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    file = tempfile.TemporaryFile()  # noqa: SIM115  # its reader closes it
    try:
        write_archive(folder, file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _read(path: Path, folder: Path | None) -> str:
    try:
        try:
            with open_left(path, below=folder or path.parent) as file:
                return _text(file, path)
        except FileNotFoundError:
            if folder is None:
                raise
            return _read_archived(path, folder)
    except (FileNotFoundError, KeyError):
        return f"The log file {path} is not there: nothing was written yet, or it was removed."
    except OSError as error:
        return f"The log file {path} cannot be read: {phrase(error.strerror or str(error))}."
    except _NO_ARCHIVE as error:
        return f"The log file {path} cannot be read from its archive: {words_of(error)}"


def _read_archived(path: Path, folder: Path) -> str:
    with _archived(folder) as members:
        return _member(members, path, folder)


@contextmanager
def _archived(folder: Path) -> Iterator[zipfile.ZipFile]:
    archive = archive_path(folder)
    with open_left(archive, below=archive.parent) as file, zipfile.ZipFile(file) as members:
        yield members


def _member(
    members: zipfile.ZipFile, path: Path, folder: Path, most_bytes: int = _MOST_OF_A_MEMBER
) -> str:
    """The text of a file in the archive of a folder.

    Raises:
        KeyError: it is not there.
        zipfile.BadZipFile and others of `_NO_ARCHIVE`: it cannot be unpacked.
    """
    member = members.getinfo(str(path.relative_to(folder)))
    if member.file_size > most_bytes:
        raise zipfile.BadZipFile(f"it has {member.file_size:,} bytes")
    with members.open(member) as log:
        return _text(cast(BinaryIO, log), path)


def _text(file: BinaryIO, path: Path) -> str:
    return two_ends(file, MAX_BYTES, str(path)).decode(errors="replace")
