"""The end of what a program wrote, as text that can be stored and shown anywhere."""

import os
import re
from contextlib import suppress
from pathlib import Path

from flows.left_files import open_left, read_end

_TAIL_BYTES = 16 * 1024
_LINE_LENGTH = 500
# All control characters but tab and newline: PostgreSQL refuses NUL, terminals obey escapes.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


def printable(text: str) -> str:
    """A text without control characters, which would be refused or obeyed somewhere."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def add_last_line(path: Path, line: str, *, below: Path) -> None:
    """End a log with a line, unless it ends with it already. Raises OSError, as `open_left`."""
    with open_left(path, "ab", below=below) as file:
        end = f"\n{printable(line)}\n".encode()
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(end)))
        if file.read() != end:
            file.write(end)


def last_lines(path: Path, lines: int = 5, *, below: Path) -> str:
    """The last lines of a log, each the last 500 characters of it; empty if there is none."""
    text = ""
    with suppress(OSError):
        text = read_end(path, _TAIL_BYTES, below=below).decode(errors="replace")
    found = [line[-_LINE_LENGTH:] for line in text.strip().splitlines()[-lines:]]
    return printable("\n".join(found))
