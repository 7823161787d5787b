"""The sentences of a job's log say what matters, briefly."""

from pathlib import Path

import pytest

from flows.reports.job_log import (
    FailedUnit,
    Filters,
    cause_of,
    chosen,
    failure_warnings,
    image_list,
    log_warning,
    memory_warning,
    reasons,
)
from fractal_models.images import MergeResult

NO_FILTERS = Filters(types={}, attributes={}, statuses=None)


def _failed(*counted: tuple[str, int]) -> list[FailedUnit]:
    """So many units that failed for each reason, image after image."""
    return [
        FailedUnit(reason, f"{reason[:1]}{number}")
        for reason, times in counted
        for number in range(times)
    ]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        (NO_FILTERS, "2 of 3 images (no filters)"),
        (Filters({"raw": True, "3D": False}, {}, None), "2 of 3 images (type raw, not 3D)"),
        (
            Filters({"raw": True}, {"well": ["A", "C"], "cycle": [1]}, ["failed", "unset"]),
            "2 of 3 images (type raw; well: A or C; cycle: 1; status: failed or unset)",
        ),
        (
            Filters({}, {"well": list("ABCDEFG")}, None),
            "2 of 3 images (well: A or B or C or D or E or 2 more)",
        ),
    ],
)
def test_what_a_task_begins_on_names_all_filters(filters: Filters, told: str) -> None:
    assert chosen(2, 3, filters) == told


def test_what_became_of_the_image_list() -> None:
    merged = MergeResult(images=[], added=["a", "b"], updated=[], removed=["c"])
    assert image_list(merged) == "Images: 2 new, 1 removed."
    nothing = MergeResult(images=[], added=[], updated=[], removed=[])
    assert image_list(nothing) == image_list(None) == "The image list stays as it was."


def test_units_that_failed_are_told_by_reason_the_most_frequent_first() -> None:
    assert reasons(_failed(("killed by signal 9", 1), ("exit code 1", 12))) == [
        "12 units: exit code 1 (first: e0)",
        "1 unit: killed by signal 9 (first: k0)",
    ]


def test_reasons_beyond_the_fifth_are_counted() -> None:
    *told, last = reasons(_failed(*((f"{number} is wrong", 2) for number in range(8))))
    assert len(told) == 5
    assert last == "6 units: 3 other reasons"


def test_what_slurm_says_is_one_reason_whichever_its_job_was() -> None:
    said = [f"SLURM job 12_{n} ended: TIMEOUT, None. node {n}: CANCELLED AT" for n in range(4)]
    assert {cause_of(each) for each in said} == {"ended by SLURM, TIMEOUT"}
    (line,) = reasons([FailedUnit(each, "A") for each in said])
    assert line == "4 units: ended by SLURM, TIMEOUT (first: A)"


@pytest.mark.parametrize(
    ("failed", "num_units", "warns"),
    [
        ([("exit code 1", 3)], 6, True),
        ([("exit code 1", 3)], 7, False),
        ([("exit code 1", 2)], 2, False),  # two may be chance
        ([("exit code 1", 2), ("exit code 2", 2)], 4, False),
        ([("exit code 1", 3), ("exit code 2", 3)], 6, True),
    ],
)
def test_half_of_the_units_that_fail_alike_have_likely_one_cause(
    failed: list[tuple[str, int]], num_units: int, warns: bool
) -> None:
    warnings = failure_warnings(_failed(*failed), num_units)
    assert len(warnings) == (len(failed) if warns else 0)
    assert all("exit code" in each and "one cause" in each for each in warnings)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("SLURM job 12_0 ended: OUT_OF_MEMORY, None.", "raise mem"),
        ("SLURM job 12_0 ended: TIMEOUT, None.", "raise time"),
        ("killed by signal 9", "out of memory"),
    ],
)
@pytest.mark.parametrize("times", [1, 4])
def test_reasons_with_a_remedy_are_told_with_it(reason: str, advice: str, times: int) -> None:
    (warning,) = failure_warnings(_failed((reason, times)), 4)
    assert advice in warning
    assert ("one cause" in warning) == (times == 4)


@pytest.mark.parametrize(
    ("asked_mb", "peak_kb", "warns"),
    [
        (4000, 60 * 1024, True),
        (600, 60 * 1024, True),
        (599, 60 * 1024, False),
        (None, 60 * 1024, False),  # nobody was asked
        (4000, 0, False),  # nothing succeeded, so nothing is known
    ],
)
def test_ten_times_the_memory_that_was_used_is_worth_a_warning(
    asked_mb: int | None, peak_kb: int, warns: bool
) -> None:
    assert bool(memory_warning(asked_mb, peak_kb, 200, "meta_parallel")) == warns


def test_a_warning_about_memory_tells_the_figures_what_to_ask_for_and_where() -> None:
    (warning,) = memory_warning(4000, 60 * 1024, 200, "meta_parallel")
    assert "3.9 GB" in warning
    assert "60 MB" in warning
    assert "ask for 200 MB next time, with mem in meta_parallel" in warning


def test_units_with_warnings_are_counted_and_the_first_log_is_named() -> None:
    logs = [Path("/job/0_x/par-000001.log"), Path("/job/0_x/par-000004.log")]
    assert log_warning(logs, 5) == [f"2 of 5 units have warnings in their logs (first: {logs[0]})."]
    assert log_warning([], 5) == []
