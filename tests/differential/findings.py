"""What a comparison has found."""

from dataclasses import dataclass
from typing import Any

from tests.differential.comparison import Difference


@dataclass(frozen=True)
class Finding:
    """A case that comes out differently. `alone`: also where nothing was before it."""

    case: str
    operation: str
    request: str
    difference: Difference
    known: str | None
    alone: bool = True

    @property
    def signature(self) -> tuple[str, ...]:
        """Findings with the same one have probably the same cause."""
        difference = self.difference
        if difference.where != "status":
            return (self.operation, difference.where)
        statuses = (str(each).split(" ")[0] for each in (difference.ours, difference.reference))
        return (self.operation, difference.where, *statuses)

    def record(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "operation": self.operation,
            "request": self.request,
            "where": self.difference.where,
            "ours": str(self.difference.ours),
            "reference": str(self.difference.reference),
            "known": self.known,
            "alone": self.alone,
        }

    def __str__(self) -> str:
        alone = "" if self.alone else " (after other requests)"
        return f"{self.case} {self.request}{alone}\n    {self.difference}"
