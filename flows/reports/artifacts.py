"""What a job shows in the Prefect UI: a plan, progress, failures and a summary.

The job never needs these artifacts: while Prefect is away, the job continues, and only the
artifacts are not updated.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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

# The UI polls; more frequent updates would only cost requests. What ends at once is shown once.
_FIRST_SECONDS, _SHOW_SECONDS = 0.5, 2.0
# How long the end of a task waits for Prefect to accept an artifact.
_PATIENCE_SECONDS = 5.0
_MAX_FAILURES_SHOWN = 100

_under_way: set[asyncio.Task[None]] = set()  # of this event loop


class Progress:
    """A progress artifact: the share of a workflow task's units that have ended."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._expected = 0
        self._ended = 0
        self._artifact: UUID | None = None
        self._shown = 0.0

    def expect(self, units: int) -> None:
        """Add units that are about to run."""
        self._expected += units

    def advance(self, units: int) -> None:
        """Add units that have ended."""
        self._ended += units

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the artifact up to date while this block runs; see `all_shown`."""
        over = asyncio.Event()
        showing = asyncio.create_task(self._keep_showing(over))
        _under_way.add(showing)
        showing.add_done_callback(_under_way.discard)
        try:
            yield
        finally:
            over.set()

    async def _keep_showing(self, over: asyncio.Event) -> None:
        """Show the progress until it is over, and then once more.

        A request that is under way is not given up: it would make an artifact of which nothing is
        known here, and that would stay at 0 %.
        """
        seconds = _FIRST_SECONDS
        while not await _is_set_within(over, seconds):
            with _patiently("progress"):
                await self._show()
            seconds = _SHOW_SECONDS
        with _patiently("progress"):
            await self._show()

    async def _show(self) -> None:
        percent = 100.0 * min(self._ended / self._expected, 1.0) if self._expected else 0.0
        if self._artifact is None:
            self._artifact = await acreate_progress_artifact(percent, self._key, self._description)
        elif percent != self._shown:
            await aupdate_progress_artifact(self._artifact, percent)
        self._shown = percent


async def all_shown() -> None:
    """Wait until Prefect has all artifacts; nothing else of a job waits for that."""
    if _under_way:
        await asyncio.wait(_under_way, timeout=_PATIENCE_SECONDS)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def show_failures(key: str, description: str, rows: Sequence[dict[str, str | int]]) -> None:
    """Show a table of failed images with the last lines of their logs; at most 100 rows."""
    with _patiently("failed units"):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await acreate_table_artifact(list(rows[:_MAX_FAILURES_SHOWN]), key, description)


async def show_text(
    what: str, key: str, description: str, markdown: str, flow_run_id: UUID
) -> None:
    """Show a text about a flow run. Can be called from any process; `what` it is, is for logs."""
    artifact = ArtifactCreate(
        key=key,
        type="markdown",
        description=description,
        data=markdown,
        flow_run_id=flow_run_id,
    )
    with _patiently(what):
        async with asyncio.timeout(_PATIENCE_SECONDS), get_client() as client:
            await client.create_artifact(artifact)


@contextmanager
def _patiently(what: str) -> Iterator[None]:
    """Log a warning, and do not fail, if Prefect does not answer within this block."""
    try:
        yield
    except (httpx.HTTPError, TimeoutError) as error:
        logger.warning("The %s cannot be shown in Prefect at present: %r", what, error)
