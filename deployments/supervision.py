"""Restarts parts that end, for whatever reason, as often as necessary."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from deployments.services import Part, ServiceError

# A part is restarted at once after its first end, then after these waits: it may be broken.
_WAITS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
# A part that has lived this long did not fail at its start.
_STEADY_SECONDS = 60.0


def wait_after(ends: int) -> float:
    """Seconds between an end and the next start; `ends` is the number of ends in a row, from 1."""
    return _WAITS[min(ends, len(_WAITS)) - 1]


@dataclass
class _Ends:
    """How often in a row a part has ended, its last start, and when it is due to start next."""

    in_a_row: int = 0
    started: float = 0.0
    due: float | None = None  # None: it runs


class Supervisor:
    """Restarts parts with `start`, when they have ended and the wait is over."""

    def __init__(
        self, start: Callable[[Part], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._start = start
        self._clock = clock
        self._ends: dict[str, _Ends] = {}

    def look(self, parts: Iterable[Part]) -> list[str]:
        """Check all parts once, each after those that it needs. Returns what happened, as lines."""
        return [
            f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}"
            for part in parts
            if (how := part.ended()) is not None and (line := self._look_at(part, how))
        ]

    def ends_in_a_row(self, name: str) -> int:
        """How often in a row a part has ended soon after its start."""
        return self._ends.get(name, _Ends()).in_a_row

    def _look_at(self, part: Part, how: str) -> str | None:
        ends = self._ends.setdefault(part.name, _Ends())
        log = f" Its log: {part.log}" if part.log else ""
        if ends.due is None:
            seconds = self._note(ends, self._clock() - ends.started >= _STEADY_SECONDS)
            if seconds:
                again = f"({ends.in_a_row} times in a row); the next start is in {seconds:.0f} s."
                return f"{part.name} ended {how} {again}{log}"
        if ends.due is not None and self._clock() < ends.due:
            return None
        try:
            self._start(part)
        except ServiceError as error:
            seconds = self._note(ends, False)
            return f"{part.name} cannot be started; the next try is in {seconds:.0f} s. {error}"
        ends.started, ends.due = self._clock(), None
        if ends.in_a_row == 1:
            return f"{part.name} ended {how} and was started again.{log}"
        return f"{part.name} was started again."

    def _note(self, ends: _Ends, steady: bool) -> float:
        """Record one more end. Returns the seconds until the next start."""
        ends.in_a_row = 1 if steady else ends.in_a_row + 1
        seconds = wait_after(ends.in_a_row)
        ends.due = self._clock() + seconds
        return seconds
