"""Opens files of image data for those who may see a folder, and nothing that is not in it.

Users make the folders and what is in them, and the server may be able to read more than they: so no
symbolic link of theirs leads out of a folder. Links of root or of the server's own user are
followed on the way to it, as sites have such (`/data` to where that is mounted).
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fractal_models.errors import NotFoundError

_MOST_LINKS = 40  # as in Linux


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that is open; `tag` differs when its content does, `modified` is in seconds."""

    file: BinaryIO
    size: int
    tag: str
    modified: float


def open_data(path: str, folder: str) -> DataFile:
    """Open a file for reading. `folder` is where the user may look, and `path` is below it.

    Both are absolute and without `..`. It blocks, perhaps for long on a file system of a network.

    Raises:
        NotFoundError: it is not there, is no regular file, leads elsewhere, or cannot be read.
    """
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)  # opens nothing yet, so cannot block
        try:
            about = os.fstat(found)
            real = str(Path(f"/proc/self/fd/{found}").readlink())
            if not stat.S_ISREG(about.st_mode) or not _is_below(real, real_folder(folder)):
                raise NotFoundError("A file", path)
            file = open(f"/proc/self/fd/{found}", "rb", buffering=0)  # noqa: SIM115, PTH123
        finally:
            os.close(found)
    except (OSError, ValueError) as error:
        raise NotFoundError("A file", path) from error
    tag = f"{about.st_ino:x}-{about.st_size:x}-{about.st_mtime_ns:x}"
    return DataFile(file, about.st_size, tag, about.st_mtime)


def real_folder(folder: str) -> str:
    """Where a folder really is, by links that only root or the server's own user has made.

    Raises:
        OSError: it is not there, or another's link is on the way.
    """
    trusted = {0, os.geteuid()}
    done, ahead, links = "/", folder.strip("/").split("/")[::-1], 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":  # of a link; `done` has none
            done = str(Path(done).parent)
            continue
        here = os.path.join(done, part)  # noqa: PTH118
        about = os.lstat(here)
        if not stat.S_ISLNK(about.st_mode):
            done = here
            continue
        links += 1
        if about.st_uid not in trusted or links > _MOST_LINKS:
            raise OSError(f"{here} is a link of another user")
        target = str(Path(here).readlink())
        done = "/" if target.startswith("/") else done
        ahead += target.split("/")[::-1]
    return done


def _is_below(real: str, folder: str) -> bool:
    return real.startswith(folder.rstrip("/") + "/")
