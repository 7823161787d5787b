"""Schedules while Prefect is away; with it: tests/flows/schedules."""

from typing import Any

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import Schedule


async def test_without_prefect_no_schedule_is_made(
    owner: Any,
    project: dict[str, Any],
    dataset: dict[str, Any],
    runnable: dict[str, Any],
    session: AsyncSession,
) -> None:
    url = f"/api/v2/project/{project['id']}/schedule/"
    body = {
        "workflow_id": runnable["id"],
        "dataset_id": dataset["id"],
        "when": {"cron": "0 2 * * *"},
    }

    answer = await owner.post(url, json=body)

    assert answer.status_code == 503
    assert "Prefect" in answer.json()["detail"]
    assert await owner.ok("GET", url) == []
    rows = await session.exec(select(Schedule).where(Schedule.project_id == project["id"]))
    assert [row.deployment_id for row in rows] == [None]  # which a worker clears away


async def test_what_is_wrong_is_told_before_prefect_is_asked(
    owner: Any, project: dict[str, Any], dataset: dict[str, Any], workflow: dict[str, Any]
) -> None:
    body = {
        "workflow_id": workflow["id"],
        "dataset_id": dataset["id"],
        "when": {"cron": "0 2 * * *"},
    }

    answer = await owner.post(f"/api/v2/project/{project['id']}/schedule/", json=body)

    assert answer.status_code == 422
    assert "has no tasks" in answer.json()["detail"]
