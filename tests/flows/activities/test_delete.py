"""Task groups that are deleted, with what they have on this machine."""

from pathlib import Path

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import TaskGroupV2, TaskV2
from tests.lab import Lab, collected, ended_activity

Sessions = async_sessionmaker[AsyncSession]


async def test_all_of_a_group_goes_and_its_activities_stay(
    lab: Lab, newer_wheel: Path, fractal: Sessions
) -> None:
    file = {"file": (newer_wheel.name, newer_wheel.read_bytes())}
    collecting = await lab.ok("POST", "/api/v2/task/collect/pip/", files=file)
    group = await collected(lab, collecting)
    assert Path(group["venv_path"]).is_dir()

    activity = await lab.ok("POST", f"/api/v2/task-group/{group['id']}/delete/")
    assert (activity["action"], activity["taskgroupv2_id"]) == ("delete", group["id"])
    ended = await ended_activity(lab, activity)

    assert (ended["status"], ended["taskgroupv2_id"]) == ("OK", None)
    assert f"{group['path']} is removed." in ended["log"]
    assert not Path(group["path"]).exists()
    assert (await lab.client.get(f"/api/v2/task-group/{group['id']}/")).status_code == 404
    async with fractal() as session:
        assert await session.get(TaskGroupV2, group["id"]) is None
        assert await session.get(TaskV2, group["task_list"][0]["id"]) is None
    before = await lab.ok("GET", f"/api/v2/task-group/activity/{collecting['id']}/")
    assert (before["status"], before["taskgroupv2_id"]) == ("OK", None)
