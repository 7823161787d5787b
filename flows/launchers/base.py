"""The protocol that all launchers implement."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flows.units.batch import Batch
from flows.units.results import Imports, UnitResult
from fractal_models.errors import FractalError


class ForeignBatchError(FractalError):
    """A batch was begun on another host, and its units may still run there."""


@dataclass(frozen=True)
class BatchEnd:
    """How a batch ended.

    `missing` are the indexes of the units without a result, in the order of the batch. They were
    not started because the batch was `stopped`, or they were lost with their runner. `stderr` has
    the runner's last words; if there are none, it says how the runner ended. `reasons` says, by
    index, why some of the missing units must not be launched again. `imports` is what each runner
    that came to its end says of the imports of its units.
    """

    missing: tuple[int, ...]
    stopped: bool
    stderr: str
    reasons: Mapping[int, str] = field(default_factory=dict)
    imports: tuple[Imports, ...] = ()


OnResults = Callable[[list[UnitResult]], Awaitable[None]]


class Launcher(Protocol):
    """Runs batches somewhere. What it has started goes on if the launcher's process dies."""

    async def run(self, batch: Batch, on_results: OnResults) -> BatchEnd:
        """Run a batch to its end, and pass its results to `on_results` as they arrive.

        A batch that an earlier process has begun is continued: if its runner lives, it is followed,
        otherwise the units without a result are run. All results are passed on, including those of
        earlier processes, so `on_results` must accept a result that it has seen before. A batch
        that was stopped is not continued. If the awaiting task is cancelled, the batch is stopped,
        and its last results are passed on before CancelledError is raised. Any other exception,
        also one of `on_results`, leaves the batch running.
        """
        ...

    def describe(self, batch: Batch) -> str:
        """A phrase that says how and where the launcher would run a batch.

        Raises:
            ValueError: the launcher cannot run the batch; `run` would raise the same error.
        """
        ...

    def memory_of(self, batch: Batch) -> int | None:
        """The memory (MiB) that the launcher asks for each unit of a batch, or None.

        Raises:
            ValueError: as `describe`.
        """
        ...

    async def stop(self, folder: Path) -> None:
        """Stop the batch in `folder`, if it is running, and return when it has ended.

        A `run` of the batch, in this process or another, then returns how it ended.
        """
        ...

    async def close(self) -> None:
        """Close connections. Batches that were launched go on."""
        ...
