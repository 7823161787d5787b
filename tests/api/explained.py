"""What statements cost in PostgreSQL, as it tells itself: without a clock."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

# For a database, so that all its sessions tell of each of their statements.
TELLING = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "notice",
    "client_min_messages": "notice",
}
_CATALOG = "pg_catalog."  # of which a new connection asks once
_REMOVED = ("Filter", "Join Filter", "Index Recheck")


@dataclass
class Costs:
    """What statements have cost, in rows that PostgreSQL held in hand and pages that it touched."""

    plans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return round(sum(_cost(plan["Plan"]) for plan in self.plans))

    @property
    def dearest(self) -> str:
        """The statement that has cost most, and its plan."""
        plan = max(self.plans, key=lambda plan: _cost(plan["Plan"]))
        return f"{plan['Query Text']}\n{json.dumps(plan['Plan'], indent=1)}"


def _cost(plan: dict[str, Any]) -> float:
    """Pages are counted with those of the nodes below."""
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] + _rows(plan)


def _rows(node: dict[str, Any]) -> float:
    removed = sum(node.get(f"Rows Removed by {by}", 0) for by in _REMOVED)
    here = (node["Actual Rows"] + removed) * node["Actual Loops"]
    return float(here + sum(map(_rows, node.get("Plans", ()))))


@contextmanager
def explained(engine: AsyncEngine) -> Iterator[Costs]:
    """What is done over new connections of an engine, to a database with the settings TELLING."""
    costs = Costs()

    def note(_: Any, message: Any) -> None:
        told, _, plan = message.message.partition("plan:\n")
        if told.startswith("duration:") and _CATALOG not in plan:
            costs.plans.append(json.loads(plan))

    def listen(connection: Any, _: Any) -> None:
        connection.driver_connection.add_log_listener(note)

    event.listen(engine.sync_engine, "connect", listen)
    yield costs
    event.remove(engine.sync_engine, "connect", listen)
