"""How much room there is in folders; a file system that hangs is told as away."""

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

_SECONDS = 2.0


class Space(NamedTuple):
    """The file system of a folder, in bytes."""

    size: int
    free: int


class Folders:
    """Asks each folder by one thread at most: one that hangs is asked again when it answers."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Task[Space | None]] = {}

    async def spaces(self, folders: Collection[str]) -> dict[str, Space | None]:
        """The space of each folder; None if it cannot be told, or not within two seconds."""
        for folder in folders:
            if (asked := self._asked.get(folder)) is None or asked.done():
                self._asked[folder] = asyncio.create_task(asyncio.to_thread(_space, folder))
        asked_now = {folder: self._asked[folder] for folder in folders}
        if asked_now:
            await asyncio.wait(asked_now.values(), timeout=_SECONDS)
        return {
            folder: task.result() if task.done() else None for folder, task in asked_now.items()
        }


def _space(folder: str) -> Space | None:
    """That of the folder in which it will be made, if it is not there yet."""
    path = Path(folder)
    try:
        while not path.exists():
            path = path.parent
        used = shutil.disk_usage(path)
    except OSError:
        return None
    return Space(used.total, used.free)
