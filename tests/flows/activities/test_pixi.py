"""Projects of pixi: collected, run, removed and made again on this machine, with a fake pixi."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import TaskGroupV2
from tests.lab import Lab, collected, ended_activity
from tests.pixi import (
    LOCK,
    VERSION,
    installed_fake_pixi,
    member,
    project,
    project_archive,
)

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture(scope="module", autouse=True)
async def pixi(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    """The resource of the lab has pixi while these tests run."""
    resources = await lab.ok("GET", "/admin/v2/resource/")
    (resource,) = (each for each in resources if each["name"] == "local")
    url = f"/admin/v2/resource/{resource.pop('id')}/"
    resource.pop("timestamp_created")
    config = installed_fake_pixi(tmp_path_factory.mktemp("pixi"))
    await lab.ok("PUT", url, json={**resource, "tasks_pixi_config": config})
    yield
    await lab.ok("PUT", url, json=resource)


async def collect(
    lab: Lab, archive: bytes, name: str = "fractal_tasks_probe-2.0.tar.gz", **form: str
) -> dict[str, Any]:
    return await lab.ok(
        "POST", "/api/v2/task/collect/pixi/", files={"file": (name, archive)}, data=form
    )


async def do(lab: Lab, action: str, group: dict[str, Any], **request: Any) -> dict[str, Any]:
    url = f"/admin/v2/task-group/{group['id']}/{action}/"
    ended = await ended_activity(lab, await lab.ok("POST", url, **request))
    assert ended["status"] == "OK", ended["log"]
    return ended


async def lock_of(fractal: Sessions, group: dict[str, Any]) -> tuple[str | None, str]:
    """What is recorded, and what is installed."""
    async with fractal() as session:
        recorded = (await session.get_one(TaskGroupV2, group["id"])).env_info
    installed = Path(group["venv_path"], ".pixi/envs/default/conda-meta/installed")
    return recorded, installed.read_text() if installed.exists() else ""


async def runs(lab: Lab, group: dict[str, Any]) -> bool:
    (task,) = (task for task in group["task_list"] if task["name"] == "Process")
    lab.tasks["of pixi"] = task["id"]
    workflow = await lab.workflow("of pixi")
    job = await lab.run(workflow, await lab.dataset("A", "B"))
    await lab.ok("DELETE", f"{lab.base}/workflow/{workflow['id']}/")
    assert job["status"] == "done", job["log"]
    return True


async def test_a_project_comes_goes_comes_back_as_it_was_and_is_deleted(
    lab: Lab, fractal: Sessions
) -> None:
    activity = await collect(lab, project())
    group = await collected(lab, activity)
    assert (group["origin"], group["pixi_version"]) == ("pixi", VERSION)
    assert (group["pkg_name"], group["version"]) == ("fractal-tasks-probe", "2.0")
    assert await lock_of(fractal, group) == (LOCK.strip(), LOCK)
    log = (await lab.ok("GET", f"/api/v2/task-group/activity/{activity['id']}/"))["log"]
    assert "'TOKIO_WORKER_THREADS': '3'" in log
    assert f"{VERSION}/cache" in log
    assert "Bytecode compiled" in log
    assert list(Path(group["venv_path"]).glob("fractal_tasks_probe/__pycache__/process.*.pyc"))
    assert await runs(lab, group)

    gone = await do(lab, "deactivate", group)
    assert f"{group['venv_path']} is removed" in gone["log"]
    assert {path.name for path in Path(group["path"]).iterdir()} == {
        "fractal_tasks_probe-2.0.tar.gz",
        ".making",
    }
    await do(lab, "reactivate", group)
    assert await lock_of(fractal, group) == (LOCK.strip(), LOCK)
    assert await runs(lab, group)
    await do(lab, "deactivate", group)
    await do(lab, "delete", group)
    assert not Path(group["path"]).exists()


async def test_a_reset_solves_anew_or_takes_the_lock_file_of_the_archive(
    lab: Lab, fractal: Sessions
) -> None:
    group = await collected(lab, await collect(lab, project(), use_pixi_lockfile="false"))
    solved, installed = await lock_of(fractal, group)
    assert solved != LOCK.strip()
    assert installed.strip() == solved
    await do(lab, "deactivate", group)
    await do(lab, "reactivate", group)
    assert await lock_of(fractal, group) == (solved, installed)

    await do(lab, "deactivate", group)
    await do(lab, "reset/pixi", group, json={})
    anew, _ = await lock_of(fractal, group)
    assert anew not in (solved, LOCK.strip())
    await do(lab, "deactivate", group)
    await do(lab, "reset/pixi", group, json={"use_pixi_lockfile": True})
    assert await lock_of(fractal, group) == (LOCK.strip(), LOCK)
    assert await runs(lab, group)
    await do(lab, "delete", group)


MANIFEST = ("pixi.toml", "[workspace]\n")


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (b"no archive", "no tar file in gzip"),
        (project_archive(), "neither pixi.toml nor pyproject.toml"),
        (project_archive(MANIFEST), "has no pixi.lock"),
        (project_archive(MANIFEST, ("pixi.lock", LOCK), member("/etc/evil")), "leads out"),
        (project_archive(("pixi.toml", "no-such-channel"), ("pixi.lock", LOCK)), "no-such-channel"),
    ],
    ids=["no archive", "no manifest", "no lock file", "hostile", "pixi fails"],
)
async def test_a_project_that_cannot_be_installed_leaves_nothing_behind(
    archive: bytes, told: str, lab: Lab
) -> None:
    activity = await collect(lab, archive)
    group = await lab.ok("GET", f"/api/v2/task-group/{activity['taskgroupv2_id']}/")
    ended = await ended_activity(lab, activity)
    assert ended["status"] == "failed"
    assert told in ended["log"]
    assert "Traceback" not in ended["log"]
    assert ended["taskgroupv2_id"] is None
    assert not Path(group["path"]).exists()


async def test_a_project_of_another_name_has_no_tasks(lab: Lab) -> None:
    activity = await collect(lab, project(), "another_name-1.0.tar.gz")
    ended = await ended_activity(lab, activity)
    assert ended["status"] == "failed"
    assert "another-name has no __FRACTAL_MANIFEST__.json" in ended["log"]


async def test_an_archive_that_is_larger_than_allowed_is_given_up(lab: Lab) -> None:
    header = member("probe/large", size=3000 << 20).tobuf()
    activity = await collect(lab, gzip.compress(header))
    ended = await ended_activity(lab, activity)
    assert ended["status"] == "failed"
    assert "more than 2000 MiB" in ended["log"]
