"""Unpack the archive of a project: `python unpack.py ARCHIVE FOLDER MAX_BYTES`.

The archive is a tar file in gzip with one folder at its top. The content of that folder is unpacked
into FOLDER, which is made anew. Archives come from users: so nothing is written elsewhere, and no
more than MAX_BYTES, whatever an archive contains.

This program runs on the machine where the project is used: it is one file, needs only the standard
library, and runs with Python 3.8 and newer. Not all of these versions have the filters of
`tarfile`, and some filters have security holes. So everything that could lead out of the folder is
refused here, before `tarfile` sees it.
"""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import sys
import tarfile
import zlib
from pathlib import Path

MAX_FILES = 100_000
# The memory of this program: the headers of an archive, which are read at once, can have any size.
MAX_MEMORY = 1 << 30


class Refused(Exception):
    """The archive is not unpacked; the message says why."""


class BoundedGzip(gzip.GzipFile):
    """A file in gzip from which at most `max_bytes` can be read."""

    def __init__(self, path: str, max_bytes: int) -> None:
        super().__init__(path, "rb")
        self.max_bytes, self.bytes_left = max_bytes, max_bytes

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.bytes_left -= len(found)
        self.require_room_for(0)
        return found

    def require_room_for(self, size: int) -> None:
        if size > self.bytes_left:
            raise Refused(f"it has more than {self.max_bytes >> 20} MiB when it is unpacked")


def main(archive: str, folder: str, max_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    os.umask(0o022)
    path, name = Path(folder), Path(archive).name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        unpack(archive, folder, max_bytes)
    except Refused as error:
        sys.exit(f"The archive {name} is refused: {error}.")
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        sys.exit(f"The archive {name} is damaged, or no tar file in gzip: {error}")
    except OSError as error:
        sys.exit(f"The archive {name} cannot be unpacked: {error}")
    except MemoryError:
        sys.exit(f"The archive {name} is refused: it needs too much memory.")


def unpack(archive: str, folder: str, max_bytes: int) -> None:
    top: str | None = None
    with BoundedGzip(archive, max_bytes) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        for number, member in enumerate(tar):
            if number == MAX_FILES:
                raise Refused(f"it has more than {MAX_FILES} files")
            parts = parts_of(member.name)
            if not parts:  # `./`
                continue
            top = top or parts[0]
            if parts[0] != top:
                raise Refused(f"it has {top!r} and {parts[0]!r} at its top, not one folder")
            member.name = "/".join(parts[1:]) or "."
            if member.issym():
                parts_of(member.linkname)
            elif member.islnk():
                member.linkname = "/".join(parts_of(member.linkname)[1:])
            elif not (member.isreg() or member.isdir()):
                raise Refused(f"{member.name!r} is neither a file nor a folder nor a link")
            file.require_room_for(member.size)
            member.mode = member.mode & 0o755 | (0o700 if member.isdir() else 0o600)
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
            tar.extract(member, folder)
    if top is None:
        raise Refused("it is empty")


def parts_of(path: str) -> list[str]:
    """The parts of a path. Refuses a path that leads out of the folder or goes up in it.

    So links, too, can only lead to places inside.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise Refused(f"{path!r} leads out of its folder, or goes up in it")
    return parts


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
