"""Task groups whose environments are made anew, with other choices."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import TaskGroupV2
from tests.lab import Lab, collected, ended_activity

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture(scope="module")
async def group(lab: Lab, newer_wheel: Path) -> Any:
    """A task group that is inactive."""
    file = {"file": (newer_wheel.name, newer_wheel.read_bytes())}
    activity = await lab.ok("POST", "/api/v2/task/collect/pip/", files=file)
    group = await collected(lab, activity)
    url = f"/api/v2/task-group/{group['id']}"
    await ended_activity(lab, await lab.ok("POST", f"{url}/deactivate/"))
    yield group
    await ended_activity(lab, await lab.ok("POST", f"{url}/delete/"))


async def reset(lab: Lab, group: dict[str, Any], **overrides: str) -> dict[str, Any]:
    url = f"/admin/v2/task-group/{group['id']}/reset/pip/"
    answer = await lab.client.post(url, json=overrides)
    assert answer.status_code == 202, answer.text
    return await ended_activity(lab, answer.json())


async def now(lab: Lab, group: dict[str, Any]) -> dict[str, Any]:
    return await lab.ok("GET", f"/api/v2/task-group/{group['id']}/")


async def test_a_reset_that_fails_changes_nothing(lab: Lab, group: dict[str, Any]) -> None:
    ended = await reset(lab, group, pinned_package_versions_post='{"iniconfig": "0.0.999"}')
    assert (ended["status"], ended["action"]) == ("failed", "reset")
    assert ended["log"].startswith("Reset failed.")
    assert "0.0.999" in ended["log"]
    assert not Path(group["venv_path"]).exists()
    assert Path(group["archive_path"]).exists()
    assert await now(lab, group) == {**group, "active": False}


@pytest.mark.pypi
async def test_a_reset_installs_other_versions_and_keeps_the_tasks(
    lab: Lab, group: dict[str, Any], fractal: Sessions
) -> None:
    async with fractal() as session:  # as if another Python had been there before
        row = await session.get_one(TaskGroupV2, group["id"])
        for task in row.task_list:
            task.command_parallel = task.command_parallel and "/gone/python"
        await session.commit()
    ended = await reset(lab, group, pinned_package_versions_post='{"iniconfig": "2.0.0"}')
    assert ended["status"] == "OK", ended["log"]
    assert "iniconfig==2.0.0" in ended["log"]
    after = await now(lab, group)
    pinned = {"iniconfig": "2.0.0"}
    assert after == {**group, "active": True, "pinned_package_versions_post": pinned}
    async with fractal() as session:
        row = await session.get_one(TaskGroupV2, group["id"])
        assert "iniconfig==2.0.0" in str(row.env_info)
    (task,) = (task for task in after["task_list"] if task["name"] == "Process")
    lab.tasks["Newer"] = task["id"]
    workflow = await lab.workflow("Newer")
    job = await lab.run(workflow, await lab.dataset("A"))
    assert job["status"] == "done", job["log"]
    await lab.client.delete(f"{lab.base}/workflow/{workflow['id']}/")
