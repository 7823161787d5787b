"""Writes files that a job shares with its units: complete, and with the right modes."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from fractal_models.private_files import open_private

# Modes of what is shared with the OS user of the units, through its group. The server's user
# belongs to that group, or is root.
PASSED = 0o710  # a folder that it passes
READ, WRITTEN = 0o640, 0o660  # a file that it reads, one that it writes to
ENTERED = 0o750  # a folder whose files it reads
FILLED = 0o3770  # a folder in which it makes files, and cannot rename those of others


def write_whole(path: Path, content: bytes) -> None:
    """Write a private file that appears only when it is complete. An OSError names the file."""
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
    try:
        with naming(partial):
            partial.unlink(missing_ok=True)
            with open_private(partial, "xb") as file:
                file.write(content)
            partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add this path to an OSError that names no file, as errors of writing do."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
