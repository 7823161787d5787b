"""Submits the parts of a batch: as many at a time as SLURM takes, and spaced out if it refuses."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from flows.launchers.slurm.cluster import TooManyError

# `sbatch` itself waits up to two minutes for a cluster that has too many jobs. Meanwhile other
# things are done.
_HANGING_SECONDS = 5.0
_SHORTEST_WAIT, _LONGEST_WAIT = 5.0, 60.0
_AFTER_AN_END = 1.0  # seconds after which SLURM has noticed an end, too


class Submitter:
    """Decides when parts are submitted, and how many in one array.

    `submit_array` submits parts as an array, with the number of the part that has index 0 in it;
    `max_array_size` tells the limit of indexes. If SLURM says that there are too many jobs, half as
    many are tried, down to one; then it is waited for.
    """

    def __init__(
        self,
        submit_array: Callable[[list[int], int], Awaitable[None]],
        max_array_size: Callable[[], Awaitable[int]],
        parts: int,
    ) -> None:
        self._submit_array = submit_array
        self._max_array_size = max_array_size
        self._at_once = parts
        self._submitting: asyncio.Task[None] | None = None
        self._next_at = 0.0
        self._wait = _SHORTEST_WAIT
        self._why = ""

    @property
    def is_submitting(self) -> bool:
        """Whether an `sbatch` runs, of which nobody can know yet what came of it."""
        return self._submitting is not None

    async def submit(self, due: Sequence[int]) -> str:
        """Submit parts, or go on with it. Returns why SLURM takes none now, or an empty text.

        Raises:
            SubmissionRefusedError, BusyError, TransportError, CommandError: see `Cluster.submit`.
        """
        if self._submitting is None:
            if not due:
                return ""
            if time.monotonic() < self._next_at:
                return self._why
            self._submitting = asyncio.create_task(self._submit_all(list(due)))
        await asyncio.wait([self._submitting], timeout=_HANGING_SECONDS)
        if not self._submitting.done():
            return "Not submitted yet: others have their turn first, or SLURM takes no jobs now."
        submitted, self._submitting = self._submitting, None
        try:
            submitted.result()
        except TooManyError as error:
            self._why = str(error)
            self._next_at = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            return self._why
        self._wait = _SHORTEST_WAIT
        return ""

    def notice_an_end(self) -> None:
        """Try again soon, because a part has ended: perhaps it was the one too many."""
        self._next_at = min(self._next_at, time.monotonic() + _AFTER_AN_END)

    async def close(self) -> None:
        """End an `sbatch` that runs; what came of it has to be found out then."""
        if self._submitting is not None:
            self._submitting.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._submitting
            self._submitting = None

    async def _submit_all(self, due: list[int]) -> None:
        limit = await self._max_array_size()
        is_accepted = False
        while due:
            offset = due[0] // limit * limit
            parts = [number for number in due if number < offset + limit][: self._at_once]
            try:
                await self._submit_array(parts, offset)
            except TooManyError:
                self._at_once = max(1, len(parts) // 2)
                if is_accepted or len(parts) == 1:
                    raise
                continue
            is_accepted = True
            due = due[len(parts) :]
            self._at_once = max(self._at_once, 2 * len(parts))
