"""The sentences of a job's log: how a workflow task begins and ends, and what is unusual.

Pure. A log has a few lines per workflow task, never one per unit.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.reports.quantities import count, memory
from flows.reports.sentences import phrase
from fractal_models.images import MergeResult, Scalar

# How many values of a filter, and how many reasons of failed units, are listed.
_MOST_VALUES = 5
_MOST_REASONS = 5
# A smaller number of units may fail for the same reason by chance.
_FEWEST_OF_ONE_CAUSE = 3
_WASTE_FACTOR = 10

# SLURM's reasons differ from job to job in the job's number and in what the node said.
_ENDED_BY_SLURM = re.compile(r"SLURM job \S+ ended: (\w+)")
_ADVICE = {
    "OUT_OF_MEMORY": "raise mem, or give those that run again more by mem_factor of retry",
    "TIMEOUT": "raise time, or lower tasks_per_job",
    "killed by signal 9": "perhaps the machine ran out of memory",
}


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters by which a workflow task chose its images."""

    types: Mapping[str, bool]
    attributes: Mapping[str, Sequence[Scalar]]
    statuses: Sequence[Scalar] | None  # of the images, in this task, in jobs before


def chosen(num_inputs: int, num_images: int, filters: Filters) -> str:
    """How many of a dataset's images a workflow task sees: '2 of 3 images (raw, well: A or C)'."""
    types = [name if wanted else f"not {name}" for name, wanted in filters.types.items()]
    by_name = dict(filters.attributes)
    if filters.statuses is not None:
        by_name["status"] = filters.statuses
    attributes = [f"{name}: {_any_of(values)}" for name, values in by_name.items()]
    named = "; ".join([*([f"type {', '.join(types)}"] if types else []), *attributes])
    return f"{num_inputs} of {count(num_images, 'image')} ({named or 'no filters'})"


def _any_of(values: Sequence[Scalar]) -> str:
    told = [str(value) for value in values[:_MOST_VALUES]]
    more = len(values) - len(told)
    return " or ".join([*told, *([f"{more} more"] if more else [])])


def image_list(merged: MergeResult | None) -> str:
    """A sentence that says how the image list changed."""
    if merged is None:
        return "The image list stays as it was."
    changes = {"new": merged.added, "updated": merged.updated, "removed": merged.removed}
    told = [f"{len(urls)} {what}" for what, urls in changes.items() if urls]
    return f"Images: {', '.join(told)}." if told else "The image list stays as it was."


@dataclass(frozen=True, slots=True)
class FailedUnit:
    """A failed unit for people to read: the reason, and the names of its images."""

    reason: str
    images: str


def cause_of(reason: str) -> str:
    """The part of a reason that is the same for all units that fail for it."""
    if found := _ENDED_BY_SLURM.search(reason):
        return f"ended by SLURM, {found[1]}"
    return phrase(" ".join(reason.split()))


def reasons(failed: Iterable[FailedUnit]) -> list[str]:
    """One line for each reason why units failed, the most frequent first."""
    groups = _by_cause(failed)
    lines = [
        f"{count(len(units), 'unit')}: {cause} (first: {units[0].images})"
        for cause, units in groups[:_MOST_REASONS]
    ]
    if others := groups[_MOST_REASONS:]:
        units = sum(len(units) for _, units in others)
        lines.append(f"{count(units, 'unit')}: {count(len(others), 'other reason')}")
    return lines


def failure_warnings(failed: Iterable[FailedUnit], num_units: int) -> list[str]:
    """Warnings with advice, from all reasons of failed units taken together."""
    warnings = []
    for cause, units in _by_cause(failed):
        number = len(units)
        advice = [words for name, words in _ADVICE.items() if cause.endswith(name)]
        if number >= _FEWEST_OF_ONE_CAUSE and 2 * number >= num_units:
            advice = advice or ["look at the task, its arguments and its environment first"]
            warnings.append(
                f"{number} of {count(num_units, 'unit')} failed for the same reason, {cause}, "
                f"which makes one cause likely: {advice[0]}."
            )
        elif advice:
            warnings.append(f"{count(number, 'unit')} failed, {cause}: {advice[0]}.")
    return warnings


def _by_cause(failed: Iterable[FailedUnit]) -> list[tuple[str, list[FailedUnit]]]:
    groups: dict[str, list[FailedUnit]] = {}
    for unit in failed:
        groups.setdefault(cause_of(unit.reason), []).append(unit)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def memory_warning(asked_mb: int | None, peak_kb: int, enough_mb: int, meta_name: str) -> list[str]:
    """A warning if far more memory was asked for (MiB per unit) than any unit used; else empty.

    `enough_mb` (MiB) is what to ask for next time.
    """
    if asked_mb is None or not peak_kb or asked_mb * 1024 < _WASTE_FACTOR * peak_kb:
        return []
    return [
        f"each unit was given {memory(asked_mb * 1024)} of memory, and none used more than "
        f"{memory(peak_kb)}: ask for {memory(enough_mb * 1024)} next time, with mem in "
        f'{meta_name} (or "auto" there), and more of them run at once.'
    ]


def log_warning(logs: Sequence[Path], num_units: int) -> list[str]:
    """A warning if units had warnings in their logs, of which `logs` are the paths; else empty."""
    if not logs:
        return []
    units = count(num_units, "unit")
    return [f"{len(logs)} of {units} have warnings in their logs (first: {logs[0]})."]
