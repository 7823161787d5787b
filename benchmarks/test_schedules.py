"""The benchmark of schedules: what it finds, and a short run of it."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from benchmarks.schedules import Day, Made, Story, examine, report
from deployments.demo.client import FractalClient
from deployments.stack import Stack

NIGHTLY = Made(id=1, name="nightly", deployment_id="d", interval=60, dataset_id=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MISSED = "Missed: no worker. The occurrence of 2026-01-01 12:0{}:00 UTC is run in its place."


def run(minute: int, state: str = "Completed", message: str = "") -> dict[str, Any]:
    """A flow run that was expected so many minutes after noon."""
    return {
        "id": f"run-{minute}",
        "expected_start_time": (NOON + timedelta(minutes=minute)).isoformat(),
        "state_name": state,
        "state": {"message": message},
    }


def job(minute: int, status: str = "done") -> dict[str, Any]:
    return {"flow_run_id": f"run-{minute}", "status": status}


def skipped(minute: int, message: str) -> dict[str, Any]:
    return run(minute, "Skipped", message)


def examined(runs: list[dict[str, Any]], jobs: list[dict[str, Any]]) -> Story:
    story = Story()
    examine(story, NIGHTLY, runs, jobs)
    return story


def test_runs_and_skips_with_a_reason_are_no_finding() -> None:
    runs = [
        run(0),
        skipped(1, "Dataset 1 has a job that has not ended: wait."),
        skipped(2, MISSED.format(3)),
        skipped(3, MISSED.format(4)),
        run(4),
    ]
    story = examined(runs, [job(0), job(4)])
    assert story.findings == []
    assert story.outcomes == {"run": 2, "busy": 1, "missed": 2}
    assert story.made_up == 1


@pytest.mark.parametrize(
    ("runs", "jobs", "finding"),
    [
        ([run(0)], [], "no job, and Completed"),
        ([run(0)], [job(0), job(0)], "2 jobs"),
        ([run(0)], [job(0, "failed")], "its job is not done"),
        ([run(0, "Failed")], [job(0)], "a job, and Failed"),
        ([run(0, "Failed", "No right.")], [], "no job, and Failed: No right."),
        ([run(0, "Late")], [], "no job, and Late"),
        ([skipped(0, "")], [], "skipped without a known reason"),
        ([run(0), run(2)], [job(0), job(2)], "is followed by a gap (120 s)"),
        ([run(0), {**run(0), "id": "run-1"}], [job(0), job(1)], "is doubled (0 s)"),
        ([skipped(0, MISSED.format(7))], [], "but it was not there"),
        ([skipped(0, MISSED.format(1)), run(1, "Crashed")], [], "but it was ? no job"),
    ],
)
def test_what_is_not_accounted_for_is_a_finding(
    runs: list[dict[str, Any]], jobs: list[dict[str, Any]], finding: str
) -> None:
    assert finding in " ".join(examined(runs, jobs).findings)


def test_every_occurrence_of_a_short_day_is_accounted_for(stack: Stack) -> None:
    client = FractalClient(stack.api_url, stack.initialised.admin_email, "of the tests")
    story = Day(stack, client, random.Random(7)).live(count=2, seconds=20)
    report(story)
    assert story.findings == []
    assert story.kills > 0
    assert story.outcomes["run"] > 0
