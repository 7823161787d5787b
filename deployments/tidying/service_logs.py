"""The logs of a `fractal-prefect up`: their old lines, while its parts go on writing."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from deployments.tidying.amount import NOTHING, Amount

# As PostgreSQL and Prefect write it, in the time of the machine; near the beginning of a line.
_TIME = re.compile(rb"\b(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)\b")
_HEAD = 200


def tidy_logs(logs: Sequence[Path], before: datetime, *, dry_run: bool) -> Amount:
    """Remove the lines of logs that were written before then. How many logs, and bytes.

    Raises:
        OSError: a log cannot be read or written.
    """
    found = NOTHING
    for path in logs:
        if old := _old_bytes(path, before):
            found += Amount(1, old)
            if not dry_run:
                _cut(path, old)
    return found


def _old_bytes(path: Path, before: datetime) -> int:
    """Where the first line begins that was written then or later.

    Lines without a time are as old as the line above them.
    """
    then = before.astimezone().strftime("%Y-%m-%d %H:%M:%S").encode()
    if path.stat().st_mtime < before.timestamp():
        return path.stat().st_size
    position, is_old = 0, False
    with path.open("rb") as log:
        for line in log:
            if found := _TIME.search(line, 0, _HEAD):
                if b" ".join(found.groups()) >= then:
                    break
                is_old = True
            position += len(line)
    return position if is_old else 0


def _cut(path: Path, old: int) -> None:
    """Remove the beginning of a file to which others append.

    Of what they write meanwhile, only that of the last microseconds is lost.
    """
    with tempfile.TemporaryFile() as rest, path.open("ab+") as log:
        log.seek(old)
        shutil.copyfileobj(log, rest)
        log.truncate(0)
        rest.seek(0)
        shutil.copyfileobj(rest, log)
