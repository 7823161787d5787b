"""Failed units by their causes, as their logs tell them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.records.report import NamedUnit

_MOST_CAUSES = 10
_LONGEST_CAUSE = 300  # characters
# What differs between units that fail for the same reason: places and numbers.
_OWN = re.compile(r"(?:\w+:)?/[^\s'\",;:)]+|\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Cause:
    """Units that failed for one reason: how many, and the first of them with the end of its log."""

    reason: str
    num_units: int
    first: NamedUnit
    log: str


def causes_of(failed: Sequence[NamedUnit], logs: Mapping[str, str]) -> list[Cause]:
    """The causes of failures, the most frequent first; `logs` are ends of logs by their paths."""
    groups: dict[tuple[str, str], list[NamedUnit]] = {}
    for unit in failed:
        last = _last_line(logs.get(unit.logfile or "", ""))
        groups.setdefault((_how(unit.exit_code), _OWN.sub("…", last)), []).append(unit)
    frequent = sorted(groups.values(), key=lambda units: -len(units))[:_MOST_CAUSES]
    return [_cause(units, logs) for units in frequent]


def _cause(units: Sequence[NamedUnit], logs: Mapping[str, str]) -> Cause:
    first = units[0]
    log = logs.get(first.logfile or "", "")
    said = _last_line(log)
    how = _how(first.exit_code)
    return Cause(f"{how}: {said}" if said else how, len(units), first, log)


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "no result"
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def _last_line(log: str) -> str:
    lines = log.strip().splitlines()
    return lines[-1].strip()[:_LONGEST_CAUSE] if lines else ""
