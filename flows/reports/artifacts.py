"""What a job shows in the Prefect UI: progress, failures and a summary.

Only shown, never needed: while Prefect is away the job goes on, and only these stand still.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import UUID

import httpx
from prefect import get_client
from prefect.artifacts import (
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.schemas.actions import ArtifactCreate

logger = logging.getLogger(__name__)

# The UI polls; showing more often only costs requests.
_SHOW_SECONDS = 2.0
# How long the end of a task waits for Prefect to take what is shown of it.
_PATIENCE_SECONDS = 5.0
_MAX_FAILURES_SHOWN = 100


class Progress:
    """The share of a workflow task's units that have ended, as a live progress artifact."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._expected = 0
        self._ended = 0
        self._artifact: UUID | None = None
        self._shown = 0.0

    def expect(self, units: int) -> None:
        """That many more units are about to run."""
        self._expected += units

    def advance(self, units: int) -> None:
        """That many more units have ended."""
        self._ended += units

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """While this block runs, the artifact follows."""
        showing = asyncio.create_task(self._keep_showing())
        try:
            yield
        finally:
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing
            with _patiently("progress"):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._show()

    async def _keep_showing(self) -> None:
        while True:
            with _patiently("progress"):
                await self._show()
            await asyncio.sleep(_SHOW_SECONDS)

    async def _show(self) -> None:
        percent = 100.0 * min(self._ended / self._expected, 1.0) if self._expected else 0.0
        if self._artifact is None:
            self._artifact = await acreate_progress_artifact(percent, self._key, self._description)
        elif percent != self._shown:
            await aupdate_progress_artifact(self._artifact, percent)
        self._shown = percent


async def show_failures(key: str, description: str, rows: Sequence[dict[str, str | int]]) -> None:
    """A table of failed images with their last log lines; the first 100 of them."""
    with _patiently("failed units"):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await acreate_table_artifact(list(rows[:_MAX_FAILURES_SHOWN]), key, description)


async def show_summary(key: str, description: str, markdown: str, flow_run_id: UUID) -> None:
    """A text about a flow run, from whatever process."""
    artifact = ArtifactCreate(
        key=key,
        type="markdown",
        description=description,
        data=markdown,
        flow_run_id=flow_run_id,
    )
    with _patiently("summary"):
        async with asyncio.timeout(_PATIENCE_SECONDS), get_client() as client:
            await client.create_artifact(artifact)


@contextmanager
def _patiently(what: str) -> Iterator[None]:
    """Within this block, that Prefect does not answer is no reason to fail."""
    try:
        yield
    except (httpx.HTTPError, TimeoutError) as error:
        logger.warning("The %s cannot be shown in Prefect at present: %r", what, error)
