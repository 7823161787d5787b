"""What a workflow task shows in the Prefect UI: its progress, and a table of what failed."""

import time
from collections.abc import Sequence
from uuid import UUID

from prefect.artifacts import (
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

# The UI polls; showing more often only costs requests.
_SHOW_SECONDS = 2.0
_MAX_FAILURES_SHOWN = 100


class Progress:
    """The share of a workflow task's units that have ended, as a live progress artifact."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._artifact: UUID | None = None
        self._total = 0
        self._ended = 0
        self._shown_at = 0.0

    async def expect(self, units: int) -> None:
        """That many more units are about to run."""
        self._total += units
        if self._artifact is None:
            self._artifact = await acreate_progress_artifact(0.0, self._key, self._description)
            self._shown_at = time.monotonic()

    async def advance(self, units: int) -> None:
        """That many more units have ended."""
        self._ended += units
        if time.monotonic() - self._shown_at >= _SHOW_SECONDS or self._ended == self._total:
            await self._show()

    async def _show(self) -> None:
        if self._artifact is not None:
            self._shown_at = time.monotonic()
            await aupdate_progress_artifact(self._artifact, 100.0 * self._ended / self._total)


async def show_failures(key: str, description: str, rows: Sequence[dict[str, str]]) -> None:
    """A table of failed images with their last log lines; the first 100 of them."""
    await acreate_table_artifact(list(rows[:_MAX_FAILURES_SHOWN]), key, description)
