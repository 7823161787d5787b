"""The protocol of the launchers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flows.units.batch import Batch
from flows.units.results import UnitResult
from fractal_models.errors import FractalError


class ForeignBatchError(FractalError):
    """A batch was begun on another host, where its units may still run."""


@dataclass(frozen=True)
class BatchEnd:
    """How a batch ended.

    `missing` are the indexes of the units that have no result, in the order of the batch: they were
    not started because the batch was `stopped`, or they were lost with their runner, whose last
    words are in `stderr`; if it left none, that says how it ended. Those that have one of the
    `reasons` are not to be launched again.
    """

    missing: tuple[int, ...]
    stopped: bool
    stderr: str
    reasons: Mapping[int, str] = field(default_factory=dict)


OnResults = Callable[[list[UnitResult]], Awaitable[None]]


class Launcher(Protocol):
    """Runs batches somewhere. What it starts lives on when the process of the launcher dies."""

    async def run(self, batch: Batch, on_results: OnResults) -> BatchEnd:
        """Run a batch to its end and hand over its results as they come.

        A batch that was begun before (by a process that is gone) is gone on with: it is followed
        if its runner lives, else the units without a result are run; all its results, those of
        before included, are handed over, so `on_results` must bear to see a result again. One that
        was stopped is not gone on with.

        If the awaiting task is cancelled, the batch is stopped and its last results are handed
        over before CancelledError goes on. Any other exception, also one of `on_results`, leaves
        the batch running.
        """
        ...

    def describe(self, batch: Batch) -> str:
        """How and where it would run a batch, as a phrase.

        Raises:
            ValueError: it cannot; `run` would raise the same.
        """
        ...

    def memory_of(self, batch: Batch) -> int | None:
        """How much memory (MiB) it asks for each unit of a batch; None if it asks nobody.

        Raises:
            ValueError: as `describe`.
        """
        ...

    async def stop(self, folder: Path) -> None:
        """Stop the batch in `folder`, if it is running, and return when it has ended.

        Whoever awaits its `run`, here or in another process, gets its end.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. What was launched goes on."""
        ...
