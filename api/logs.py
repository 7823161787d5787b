"""Log files, as text of a size that a browser can take."""

import asyncio
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from flows.reports.sentences import phrase, words_of
from flows.units.job_folder import archive_path
from flows.units.left_files import open_left, two_ends

MAX_BYTES = 1 << 20
_MOST_OF_A_MEMBER = 256 << 20  # which is unpacked to be read


async def read_log(path: Path, *, folder: Path | None) -> str:
    """The text of a log in the folder of a job, off the event loop; of a long one its two ends.

    Where the folder was removed, it is read from the job's archive; with None for the folder, the
    log is of no job. A file that is not there, or not to be read, gives a text that says so.
    """
    return await asyncio.to_thread(_read, path, folder)


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
