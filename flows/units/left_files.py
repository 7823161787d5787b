"""Opens files that units may have made or replaced, without trusting them.

Whoever can run a task can put a named pipe, a symbolic link, a folder or a sparse file of a
terabyte where a file should be. The functions here do not block, do not leave the folder, and read
only up to a size. Errors are OSErrors that name the file.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

from flows.programs.unit_runner import NOT_REGULAR, open_regular
from flows.reports.text import printable

_FLAGS = {"rb": os.O_RDONLY, "ab": os.O_RDWR | os.O_APPEND}


def open_left(path: Path, mode: Literal["rb", "ab"] = "rb", *, below: Path) -> BinaryIO:
    """Open a regular file, to read it or (`ab`) to read it and append to it.

    With `ab`, a file that does not exist is made, and is private. `below` is a folder that nobody
    else can replace; neither the file nor a folder between the two may be a symbolic link.

    Raises:
        FileNotFoundError: a file to read does not exist.
        OSError: it is not below that folder, is no regular file, or cannot be opened.
    """
    if path == below or not path.is_relative_to(below) or ".." in path.parts:
        raise OSError(errno.EINVAL, f"it is not in {below}", str(path))
    *folders, name = path.relative_to(below).parts
    folder = os.open(below, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for each in folders:
            within, folder = folder, _open_folder(each, folder, path)
            os.close(within)
        file = _open_file(name, mode, folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(folder)
    return os.fdopen(file, "rb" if mode == "rb" else "a+b")


def _open_file(name: str, mode: Literal["rb", "ab"], folder: int) -> int:
    """Open the file, and make it only if it does not exist.

    Both are tried apart because the kernel may refuse O_CREAT for a file of another user.
    """
    try:
        file = open_regular(name, _FLAGS[mode], dir_fd=folder)
    except FileNotFoundError:
        if mode == "rb":
            raise
        return open_regular(name, _FLAGS[mode] | os.O_CREAT, dir_fd=folder, mode=0o600)
    if mode == "ab" and os.fstat(file).st_nlink != 1:  # perhaps a file of ours in another place
        os.close(file)
        raise OSError(errno.EMLINK, "it has another name, too", name)
    return file


def _open_folder(name: str, within: int, path: Path) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
    except NotADirectoryError as error:  # a symbolic link is none either
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path)) from error


def read_left(path: Path, max_bytes: int, *, below: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: as `open_left`, or the file has more than `max_bytes`.
    """
    with open_left(path, below=below) as file:
        size = file.seek(0, os.SEEK_END)  # asked for more, Python takes room for all of that
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes", str(path))
        file.seek(0)
        return file.read(size)


def read_end(path: Path, max_bytes: int, *, below: Path) -> bytes:
    """The last `max_bytes` of a file. Raises OSError, as `open_left`."""
    with open_left(path, below=below) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
        return file.read(max_bytes)


def two_ends(file: BinaryIO, max_bytes: int, name: str) -> bytes:
    """The content of a file; beyond `max_bytes`, its beginning and end with a note between them."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size <= max_bytes:
        return file.read(max_bytes)
    begin = file.read(max_bytes // 2)
    file.seek(size - max_bytes // 2)
    end = file.read(max_bytes // 2)
    left_out = size - len(begin) - len(end)
    return b"\n\n".join([begin, f"[... {left_out} bytes left out, see {name} ...]".encode(), end])


_TAIL_BYTES = 16 * 1024
_LINE_LENGTH = 500


def add_last_line(path: Path, line: str, *, below: Path) -> None:
    """Add a line at the end of a log, unless it is there. Raises OSError, as `open_left`."""
    with open_left(path, "ab", below=below) as file:
        end = f"\n{printable(line)}\n".encode()
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(end)))
        if file.read() != end:
            file.write(end)


def last_lines(path: Path, lines: int = 5, *, below: Path) -> str:
    """The last lines of a log, of each line at most the last 500 characters.

    Empty if the log does not exist or cannot be opened.
    """
    text = ""
    with suppress(OSError):
        text = read_end(path, _TAIL_BYTES, below=below).decode(errors="replace")
    return end_of(text, lines)


def end_of(text: str, lines: int) -> str:
    """The last lines of a log's text, of each line at most the last 500 characters."""
    found = [line[-_LINE_LENGTH:] for line in text.strip().splitlines()[-lines:]]
    return printable("\n".join(found))
