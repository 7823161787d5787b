"""Task groups that are deactivated and reactivated on this machine."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import TaskGroupV2
from tests.lab import Lab, ended_activity

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def group(lab: Lab) -> dict[str, Any]:
    """The task group of the lab, which each test leaves active."""
    task = await lab.ok("GET", f"/api/v2/task/{lab.tasks['Process']}/")
    return await lab.ok("GET", f"/api/v2/task-group/{task['taskgroupv2_id']}/")


async def do(lab: Lab, action: str, group: dict[str, Any]) -> dict[str, Any]:
    """The activity when it has ended."""
    url = f"/api/v2/task-group/{group['id']}/{action}/"
    return await ended_activity(lab, await lab.ok("POST", url))


async def is_active(lab: Lab, group: dict[str, Any]) -> bool:
    return bool((await lab.ok("GET", f"/api/v2/task-group/{group['id']}/"))["active"])


async def test_an_environment_goes_and_comes_back_as_it_was(
    lab: Lab, group: dict[str, Any], fractal: Sessions
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    gone = await do(lab, "deactivate", group)
    assert (gone["status"], gone["action"]) == ("OK", "deactivate")
    assert f"{group['venv_path']} is removed" in gone["log"]
    assert not Path(group["venv_path"]).exists()
    assert Path(group["archive_path"]).is_file()
    assert not await is_active(lab, group)
    query = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
    refused = await lab.client.post(f"{lab.base}/job/submit/", params=query, json={})
    assert refused.status_code == 422
    assert "reactivate it" in refused.json()["detail"]

    back = await do(lab, "reactivate", group)
    assert (back["status"], back["action"]) == ("OK", "reactivate")
    assert await is_active(lab, group)
    job = await lab.run(workflow, dataset)
    assert job["status"] == "done", job["log"]
    async with fractal() as session:
        env_info = (await session.get_one(TaskGroupV2, group["id"])).env_info
    assert env_info is not None
    assert "fractal-tasks-probe @ file://" in env_info


async def test_a_reactivation_that_fails_leaves_the_group_inactive_and_no_environment(
    lab: Lab, group: dict[str, Any], fractal: Sessions
) -> None:
    await do(lab, "deactivate", group)
    async with fractal() as session:
        row = await session.get_one(TaskGroupV2, group["id"])
        frozen, row.env_info = row.env_info, f"{row.env_info}\nfractal-tasks-core==0.0.999"
        await session.commit()
        failed = await do(lab, "reactivate", group)
        assert failed["status"] == "failed"
        assert failed["log"].startswith("Reactivation failed.")
        assert "0.0.999" in failed["log"]
        assert not await is_active(lab, group)
        assert not Path(group["venv_path"]).exists()
        row.env_info = frozen
        await session.commit()
    assert (await do(lab, "reactivate", group))["status"] == "OK"
