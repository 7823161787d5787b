"""What a job leaves, for those who read it: logs as texts that a browser can take, its archive."""

import asyncio
import errno
import os
import tempfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from flows.reports.sentences import phrase, words_of
from flows.units.job_folder import JOB_LOG, archive_path, write_archive
from flows.units.left_files import open_left, two_ends
from fractal_models.tables import JobV2

MAX_BYTES = 1 << 20
_MOST_OF_A_MEMBER = 256 << 20  # which is unpacked to be read


async def read_log(path: Path, *, folder: Path | None) -> str:
    """The text of a log in the folder of a job, off the event loop; of a long one its two ends.

    Where the folder was removed, it is read from the job's archive; with None for the folder, the
    log is of no job. A file that is not there, or not to be read, gives a text that says so.
    """
    return await asyncio.to_thread(_read, path, folder)


async def log_so_far(job: JobV2) -> str | None:
    """What is written in the folder of a job that has not ended, and then why it waits."""
    path = Path(job.working_dir or "", JOB_LOG)
    if job.working_dir is None or not await asyncio.to_thread(path.is_file):
        return job.log
    return f"{await read_log(path, folder=path.parent)}{job.log or ''}"


def open_zip(folder: Path) -> IO[bytes]:
    """The archive of a folder, or one that is made now, and gone when it is closed.

    Raises:
        OSError: neither is there, or can be read or written.
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
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        return f"The log file {path} cannot be read from its archive: {words_of(error)}"


def _read_archived(path: Path, folder: Path) -> str:
    archive = archive_path(folder)
    with open_left(archive, below=archive.parent) as file, zipfile.ZipFile(file) as members:
        member = members.getinfo(str(path.relative_to(folder)))
        if member.file_size > _MOST_OF_A_MEMBER:
            raise zipfile.BadZipFile(f"it has {member.file_size:,} bytes")
        with members.open(member) as log:
            return _text(cast(BinaryIO, log), path)


def _text(file: BinaryIO, path: Path) -> str:
    return two_ends(file, MAX_BYTES, str(path)).decode(errors="replace")
