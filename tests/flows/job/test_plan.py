"""A job shows its plan when it begins, and is not disturbed by that."""

import asyncio
import logging
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.client.orchestration import PrefectClient

from flows.job import plan
from flows.job.run import JobRun
from tests.lab import Lab, eventually


async def test_a_job_shows_its_plan_and_the_next_is_predicted(
    lab: Lab, prefect: PrefectClient
) -> None:
    step = ("Process", {"args_parallel": {"seconds": 3}})
    workflow, images = await lab.workflow(step), await lab.dataset("A", "B")
    job = await lab.run(workflow, images)
    shown = await eventually(lambda: _artifacts(prefect, f"job-{job['id']}-plan"), bool)
    ids = {"workflow_id": workflow["id"], "dataset_id": images["id"]}
    again = await lab.ok("POST", f"{lab.base}/job/plan/", params=ids, json={})
    _, units = await lab.history(workflow, images)

    assert "0 Process" in shown[0]["data"]
    assert "2 of 2" in shown[0]["data"]
    took = _seconds(units)
    assert again["wall_seconds"]["median"] == pytest.approx(took, rel=0.3)
    assert any("has been done with 2 images" in each["told"] for each in again["findings"])


def _seconds(units: list[dict[str, Any]]) -> float:
    times = [
        datetime.fromisoformat(unit[key]) for unit in units for key in ("started_at", "ended_at")
    ]
    return (max(times) - min(times)).total_seconds()


async def _artifacts(prefect: PrefectClient, key: str) -> list[dict[str, Any]]:
    body = {"artifacts": {"key": {"any_": [key]}}}
    found: list[dict[str, Any]] = (
        await prefect._client.post("/artifacts/filter", json=body)
    ).json()
    return found


class _JobWithoutDatabase(SimpleNamespace):
    def session_aside(self) -> Any:
        raise OSError("The database is away.")


async def test_a_plan_that_cannot_be_made_does_not_disturb_the_job(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plan, "_FIRST_SECONDS", 0)
    job = cast(JobRun, _JobWithoutDatabase(recorded=[], job=SimpleNamespace(), id=1))

    with caplog.at_level(logging.WARNING), plan.plan_shown(job):
        await asyncio.sleep(0.1)

    assert "The plan of job 1 cannot be shown" in caplog.text


async def test_a_plan_that_takes_longer_than_its_job_is_given_up() -> None:
    job = cast(JobRun, _JobWithoutDatabase(recorded=[], job=SimpleNamespace(), id=1))
    before = asyncio.all_tasks()

    with plan.plan_shown(job):
        await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before
