"""What `fractal-web` shows of the log of a job that failed."""

import pytest

from flows.reports.failure_log import log_of_failure

STORY = "2026-01-01 12:00:00.000+00:00 Job 7 begins.\n2026-01-01 12:00:09.000+00:00 Job failed."
PYTHON = "Traceback (most recent call last):"


def shown(log: str, lines: int = 5) -> list[str]:
    """The lines that `fractal-web` shows beside a workflow whose latest job failed.

    Written after what its `extractRelevantJobError` is seen to do.
    """
    first, *rest = log.strip().splitlines()
    assert first.startswith(("TASK ERROR", "JOB ERROR", "UNKNOWN ERROR"))
    if any(line.startswith(PYTHON) for line in rest):
        last = max(index for index, line in enumerate(rest) if line.startswith(PYTHON))
        ends = (i for i, line in enumerate(rest) if i > last and not line.startswith((" ", "\t")))
        return [first, *rest[next(ends) :]][:lines]
    if "TRACEBACK:" in rest:
        return [first, *rest[rest.index("TRACEBACK:") + 1 :]][:lines]
    return [first]


def test_the_reason_comes_first_and_then_the_story() -> None:
    log = log_of_failure(7, "No image to process.", STORY)
    assert shown(log) == ["JOB ERROR in Fractal job 7: No image to process."]
    assert log.endswith(STORY)


def test_the_end_of_a_unit_s_log_is_shown() -> None:
    evidence = ["loading", "  of much", "ValueError: too dark"]
    log = log_of_failure(7, "\n".join(["1 of 2 units failed.", *evidence]), STORY)
    assert shown(log)[:4] == ["JOB ERROR in Fractal job 7: 1 of 2 units failed.", *evidence]
    assert log.endswith(STORY)


def test_of_a_python_traceback_the_error_is_shown() -> None:
    evidence = f"{PYTHON}\n  File 'a.py', line 3\n    raise\nValueError: too dark"
    log = log_of_failure(7, f"1 of 2 units failed.\n{evidence}", STORY)
    assert shown(log)[1] == "ValueError: too dark"


@pytest.mark.parametrize("reason", ["", "\n"])
def test_without_a_reason_that_is_said(reason: str) -> None:
    log = log_of_failure(7, reason, "")
    assert log == "JOB ERROR in Fractal job 7: it gave no reason."
