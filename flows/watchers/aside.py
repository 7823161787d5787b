"""Lets work that takes long go on aside, so that it holds nothing else up."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Aside:
    """Work of a watcher. Between two calls of `renew`, it is waited for `seconds` altogether; what
    has not ended then goes on aside, at most `most` things at a time."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._until = 0.0
        self._going_on: set[asyncio.Task[None]] = set()  # an event loop does not keep its tasks

    def renew(self) -> None:
        """Have patience again."""
        self._until = time.monotonic() + self._seconds

    @property
    def has_room(self) -> bool:
        """Whether more can be begun."""
        return len(self._going_on) < self._most

    async def do(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something, and wait for its end as long as there is patience.

        Its errors are raised as long as it is waited for, and logged later; `what` is for the log.
        """
        task = asyncio.create_task(work, name=what)
        try:
            await asyncio.wait([task], timeout=max(0.0, self._until - time.monotonic()))
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            task.result()
            return
        self._going_on.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._going_on.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("%s will be looked at again: %s", task.get_name(), error)
