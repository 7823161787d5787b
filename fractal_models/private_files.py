"""Files and folders that only their owner can read, whatever the umask."""

import os
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, overload


@overload
def open_private(path: Path, mode: Literal["wb", "ab", "xb"]) -> BinaryIO: ...
@overload
def open_private(path: Path, mode: Literal["w", "a"]) -> TextIO: ...
def open_private(path: Path, mode: str) -> IO[Any]:
    """Open a file for writing. The file is private afterwards, even if it existed before."""
    return open(path, mode, opener=_private)


def _private(path: str, flags: int) -> int:
    file = os.open(path, flags, 0o600)
    os.fchmod(file, 0o600)
    return file


def private_folder(path: Path) -> None:
    """Make a folder, if it does not exist, and let only its owner enter it.

    Parent folders that have to be made get their modes from the umask.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
