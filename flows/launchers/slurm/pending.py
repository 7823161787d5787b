"""Tells why SLURM jobs wait, in SLURM's words."""

import time
from collections import Counter
from collections.abc import Iterable

from flows.launchers.slurm.queue import Snapshot
from flows.launchers.slurm.watch import Element
from flows.reports.quantities import count

_NO_REASON = ("None", "")


class Pending:
    """The reasons for which the SLURM jobs of a batch wait.

    A reason is told once, when it has lasted for `patience` seconds.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def news(self, elements: Iterable[Element], snapshot: Snapshot) -> str:
        """What is to be told now; mostly an empty text."""
        states = (snapshot.elements.get((each.token, each.index)) for each in elements)
        reasons = Counter(how.reason for how in states if how and how.state == "PENDING")
        now = time.monotonic()
        self._since = {
            reason: self._since.get(reason, now) for reason in reasons if reason not in _NO_REASON
        }
        new = [
            reason
            for reason, since in self._since.items()
            if reason not in self._told and now - since >= self._patience
        ]
        self._told.update(new)
        waiting = (f"{count(reasons[reason], 'SLURM job')} for {reason}" for reason in new)
        return f"SLURM says what is waited for: {', '.join(waiting)}." if new else ""
