"""Spaces out what all processes of a host ask of a cluster."""

import asyncio
import fcntl
import time
from contextlib import suppress
from pathlib import Path

# A turn that is later was written before the clock was set back.
_LATEST_TURN = 3600.0


class Pace:
    """Gives turns that are at least `seconds` apart; the latest one is kept in the file `path`."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds

    async def turn(self) -> None:
        """Wait for the next turn that nobody has."""
        when = await asyncio.to_thread(self._reserve)
        await asyncio.sleep(max(0.0, when - time.time()))

    def _reserve(self) -> float:
        """Reserve a turn. Returns its time, in seconds since the epoch."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            now, latest = time.time(), 0.0
            with suppress(ValueError):
                latest = float(file.read() or 0.0)
            when = max(now, latest + self._seconds) if latest < now + _LATEST_TURN else now
            file.truncate(0)
            file.write(f"{when}\n")
            return when
