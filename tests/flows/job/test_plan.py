"""A job shows its plan when it begins, and is not disturbed by that."""

import asyncio
import logging
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.client.orchestration import PrefectClient
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job import plan
from flows.job.run import JobRun
from flows.records.runs import open_run
from flows.submission import profile_of
from fractal_models.tables import DatasetV2, JobV2, ProjectV2
from tests.api.history_rows import write_done_units
from tests.lab import Lab, eventually


async def test_a_job_shows_its_plan_and_the_next_is_predicted(
    lab: Lab, prefect: PrefectClient
) -> None:
    # Tasks of its own: what units of others needed would count.
    process = await lab.ok("GET", f"/api/v2/task/{lab.tasks['Process']}/")
    for name in ("Quick", "Slow"):
        body = {"name": name, "command_parallel": process["command_parallel"], "version": "1"}
        lab.tasks[name] = (await lab.ok("POST", "/api/v2/task/", json=body))["id"]
    step = ("Slow", {"args_parallel": {"seconds": 3}})
    workflow, images = await lab.workflow("Quick", step), await lab.dataset("A", "B")
    job = await lab.run(workflow, images)
    shown = await eventually(lambda: _artifacts(prefect, f"job-{job['id']}-plan"), bool)
    ids = {"workflow_id": workflow["id"], "dataset_id": images["id"]}
    again = await lab.ok("POST", f"{lab.base}/job/plan/", params=ids, json={})
    _, units = await lab.history(workflow, images, order=1)

    assert "0 Quick" in shown[0]["data"]
    assert "2 of 2" in shown[0]["data"]
    predicted = again["tasks"][1]["wall_seconds"]["median"]
    assert predicted == pytest.approx(_seconds(units), rel=0.3)
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


async def test_what_a_job_does_before_its_plan_is_made_is_not_in_it(
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Any,
    sessions: async_sessionmaker[AsyncSession],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = f"/api/v2/project/{dataset['project_id']}/dataset/{dataset['id']}/images/"
    await owner.ok("POST", images, json={"zarr_url": f"{dataset['zarr_dir']}/a"})
    job_id = (await submit(runnable, dataset)).json()["id"]
    begun = asyncio.Event()

    async def profile_of_then_begun(*asked: Any) -> Any:
        found = await profile_of(*asked)
        begun.set()
        return found

    monkeypatch.setattr(plan, "profile_of", profile_of_then_begun)
    async with sessions() as session:
        job = await _beginning(session, job_id, sessions)
    planning = asyncio.create_task(plan._plan(job))
    await begun.wait()
    async with sessions() as session:
        await _do_first_task(session, job)
    before, after = await planning, await plan._plan(job)

    told = [[each.told for each in planned.findings] for planned in (before, after) if planned]
    assert [any("has been done with 1 image" in each for each in found) for found in told] == [
        False,
        True,
    ]


async def _beginning(
    session: AsyncSession, job_id: int, sessions: async_sessionmaker[AsyncSession]
) -> JobRun:
    """What a plan needs of a job that begins."""
    row = await session.get_one(JobV2, job_id)
    dataset = await session.get_one(DatasetV2, row.dataset_id)
    project = await session.get_one(ProjectV2, row.project_id)
    return cast(
        JobRun,
        SimpleNamespace(
            job=row,
            resource_id=project.resource_id,
            zarr_dir=dataset.zarr_dir,
            workflow_tasks=row.workflow_dump["task_list"],
            session_aside=sessions,
        ),
    )


async def _do_first_task(session: AsyncSession, job: JobRun) -> None:
    task = job.workflow_tasks[0]
    run_id = await open_run(session, job.job, task, 1)
    await write_done_units(session, job.job.dataset_id or 0, task["id"], run_id)
    await session.commit()


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
