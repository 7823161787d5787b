"""Decides which parts of a batch SLURM does not run any more."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from flows.launchers.slurm.queue import ElementState, Snapshot
from flows.launchers.slurm.record import FORGOTTEN

# After this many times `patience` seconds without news of an element, nothing more is expected of
# it.
_MOST_PATIENCES = 10
_LOOK_UPS_AT_ONCE = 20


# Looks up an element by its SLURM name and the comment of its array, as `Cluster.look_up`.
LookUp = Callable[[str, str], Awaitable[ElementState | None]]


@dataclass(frozen=True)
class Element:
    """An element of a submitted job array. `name` is SLURM's; None until its id is certain."""

    token: str
    index: int
    name: str | None


@dataclass
class _Doubt:
    """An element that SLURM does not list.

    `since` and `ask_at` are the times when it was first missing and when to look it up next;
    `forgotten` counts the look-ups in a row that found SLURM does not know it.
    """

    since: float
    ask_at: float
    forgotten: int = 0


class Watch:
    """Compares what was submitted with what SLURM says.

    If an answer of `squeue` lacks an element, the answer may be old, or cut, or from a controller
    that lags behind. So the element is only in doubt at first. It has ended if it was missing for
    longer than `patience` seconds, and SLURM, asked about its id, either names its end or says
    twice that it does not know it. An answer older than `oldest` seconds is not used.
    """

    def __init__(self, look_up: LookUp, patience: float, oldest: float) -> None:
        self._look_up = look_up
        self._patience = patience
        self._oldest = oldest
        self._doubts: dict[tuple[str, int], _Doubt] = {}

    async def ended(
        self, elements: Mapping[int, Element], snapshot: Snapshot | None
    ) -> dict[int, ElementState]:
        """The elements that have ended, with their states. Keys are the numbers of the parts."""
        is_new = snapshot is not None and abs(time.time() - snapshot.asked_at) <= self._oldest
        ended = {}
        in_doubt = {}
        for part, element in elements.items():
            key = element.token, element.index
            how = snapshot.elements.get(key) if snapshot is not None and is_new else None
            if how is None:
                in_doubt[part] = element
                continue
            self._doubts.pop(key, None)
            if not how.is_alive:
                ended[part] = how
        return ended | await self._resolve(in_doubt, is_told=is_new)

    async def _resolve(
        self, elements: Mapping[int, Element], *, is_told: bool
    ) -> dict[int, ElementState]:
        """Look up elements that SLURM did not list; `is_told` says that there was a recent list.

        Returns the elements that have ended, with their states.
        """
        ended = {}
        look_ups = 0
        for part, element in elements.items():
            now = time.monotonic()
            doubt = self._doubts.setdefault(
                (element.token, element.index), _Doubt(now, now + self._patience)
            )
            if element.name is None or now < doubt.ask_at or look_ups >= _LOOK_UPS_AT_ONCE:
                continue
            look_ups += 1
            how = await self._look_up(element.name, element.token)
            doubt.ask_at = time.monotonic() + self._patience / 4
            doubt.forgotten = doubt.forgotten + 1 if how is FORGOTTEN else 0
            if how is not None and how.is_alive:
                doubt.ask_at += self._patience
            elif how is not None and how is not FORGOTTEN:
                ended[part] = how
            elif doubt.forgotten > 1 or (
                how is None and is_told and now - doubt.since > _MOST_PATIENCES * self._patience
            ):
                ended[part] = FORGOTTEN
        return ended
