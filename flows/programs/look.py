"""Look whether files and folders are there, and may be used: `python look.py`.

It runs as the user of units, on the machine where these run, so it is one file, needs only the
standard library, and runs with Python 3.8 and newer. It reads a JSON list of paths, and prints a
list with, for each, the nearest folder or file that is there, and what this user may do:

    there     the path itself, or the nearest folder above it that can be seen
    kind      "file", "folder" or "other"
    may_read  whether it may be read, a folder entered, too
    may_write whether it may be written, in a folder something made
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    paths = json.load(sys.stdin)
    json.dump([look(path) for path in paths], sys.stdout)


def look(path: str) -> dict[str, object]:
    there = os.path.normpath(path)
    while not os.path.exists(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    is_folder = os.path.isdir(there)
    enter = os.X_OK if is_folder else 0
    return {
        "there": path if there == os.path.normpath(path) else there,
        "kind": "folder" if is_folder else "file" if os.path.isfile(there) else "other",
        "may_read": os.access(there, os.R_OK | enter),
        "may_write": os.access(there, os.W_OK | enter),
    }


if __name__ == "__main__":
    main()
