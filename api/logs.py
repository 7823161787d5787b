"""Log files, as text of a size that a browser can take."""

import asyncio
import os
from pathlib import Path

MAX_BYTES = 1 << 20


async def read_log(path: Path) -> str:
    """The text of a log file, off the event loop; of a long one its two ends.

    A file that is not there, or not to be read, gives a text that says so.
    """
    return await asyncio.to_thread(_read, path)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if size <= MAX_BYTES:
                return _text(file.read(MAX_BYTES))
            head = file.read(MAX_BYTES // 2)
            file.seek(-(MAX_BYTES // 2), os.SEEK_END)
            tail = file.read(MAX_BYTES // 2)
    except FileNotFoundError:
        return f"The log file {path} is not there: nothing was written yet, or it was removed."
    except OSError as error:
        return f"The log file {path} cannot be read: {error.strerror}."
    left_out = size - len(head) - len(tail)
    return f"{_text(head)}\n\n[... {left_out} bytes left out, see {path} ...]\n\n{_text(tail)}"


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")
