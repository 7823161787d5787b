"""How much there is of something."""

from dataclasses import dataclass
from typing import Self

from flows.reports.quantities import memory


@dataclass(frozen=True)
class Amount:
    """A number of things, and how many bytes they have together."""

    number: int = 0
    size: int = 0

    def __add__(self, other: Self) -> "Amount":
        return Amount(self.number + other.number, self.size + other.size)

    def __str__(self) -> str:
        return f"{self.number:,} ({memory(self.size / 1024)})"


NOTHING = Amount()
