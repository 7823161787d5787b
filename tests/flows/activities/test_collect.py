"""Collection of task packages: from the package index, and what a failure leaves behind."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from fractal_models.tables import Resource
from tests.journal import process_of
from tests.lab import Lab, collected, ended_activity, eventually

Sessions = async_sessionmaker[AsyncSession]


async def collect(lab: Lab, **form: str) -> dict[str, Any]:
    return await lab.ok("POST", "/api/v2/task/collect/pip/", data=form)


async def failed(lab: Lab, activity: dict[str, Any]) -> dict[str, Any]:
    """The activity when it has ended, badly."""
    ended = await ended_activity(lab, activity)
    assert ended["status"] == "failed"
    return ended


@pytest.mark.pypi
async def test_a_package_of_the_package_index_is_installed_with_its_tasks(lab: Lab) -> None:
    activity = await collect(
        lab,
        package="fractal-tasks-core",
        package_version="2.1.0",
        pinned_package_versions_pre='{"wheel": "0.45.1"}',
    )
    group = await collected(lab, activity)
    assert group["active"]
    assert group["origin"] == "pypi"
    tasks = {task["name"]: task for task in group["task_list"]}
    segmentation = tasks["Threshold Segmentation"]
    assert segmentation["type"] == "parallel"
    assert segmentation["args_schema_parallel"]["required"] == ["zarr_url", "channel"]
    python, script = segmentation["command_parallel"].split()
    assert python == f"{group['venv_path']}/bin/python"
    assert Path(script).is_file()
    log = (await lab.ok("GET", f"/api/v2/task-group/activity/{activity['id']}/"))["log"]
    assert "fractal-tasks-core==2.1.0" in log
    assert "wheel==0.45.1" in log


async def test_a_version_that_does_not_exist_is_refused_at_once(lab: Lab) -> None:
    form = {"package": "fractal-tasks-core", "package_version": "0.0.999"}

    answer = await lab.client.post("/api/v2/task/collect/pip/", data=form)

    assert answer.status_code == 422
    assert "0.0.999" in answer.json()["detail"]


async def test_a_package_without_manifest_is_refused_and_removed(lab: Lab) -> None:
    activity = await collect(lab, package="iniconfig", package_version="2.0.0")
    ended = await failed(lab, activity)
    assert "__FRACTAL_MANIFEST__.json" in ended["log"]
    assert ended["taskgroupv2_id"] is None


async def test_the_same_version_is_not_collected_twice(lab: Lab, wheel: Path) -> None:
    answer = await lab.client.post(
        "/api/v2/task/collect/pip/", files={"file": (wheel.name, wheel.read_bytes())}
    )
    assert answer.status_code == 422
    assert "fractal-tasks-probe" in answer.json()["detail"]


async def flow_run_of(prefect: PrefectClient, activity: dict[str, Any]) -> FlowRun:
    name = f"collect {activity['pkg_name']} {activity['version']}"
    (flow_run,) = await prefect.read_flow_runs(
        flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])),
        sort=FlowRunSort.ID_DESC,
        limit=1,
    )
    return flow_run


@pytest.fixture
async def waiting_python(fractal: Sessions, gate: Path, tmp_path: Path) -> AsyncIterator[str]:
    """A version of Python with which an environment can only be made when there is the gate."""
    python = tmp_path / "python"
    until = f"until [ -e {gate} ]; do sleep 0.1; done"
    python.write_text(f'#!/bin/sh\n{until}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    async with fractal() as session:
        resource = await session.get_one(Resource, 1)
        config = resource.tasks_python_config
        versions = {**config["versions"], "3.12": str(python)}
        resource.tasks_python_config = {**config, "versions": versions}
        await session.commit()
        yield "3.12"
        resource.tasks_python_config = config
        await session.commit()


async def test_a_collection_goes_on_though_its_process_and_its_worker_die(
    lab: Lab,
    stack: Stack,
    prefect: PrefectClient,
    gate: Path,
    newer_wheel: Path,
    waiting_python: str,
) -> None:
    activity = await lab.ok(
        "POST",
        "/api/v2/task/collect/pip/",
        files={"file": (newer_wheel.name, newer_wheel.read_bytes())},
        data={"python_version": waiting_python},
    )
    flow_run = {"flow_run_id": (await flow_run_of(prefect, activity)).id}
    url = f"/api/v2/task-group/activity/{activity['id']}/"
    await eventually(lambda: lab.ok("GET", url), lambda now: now["status"] == "ongoing")
    (await process_of(prefect, flow_run)).kill()
    told = await eventually(lambda: lab.ok("GET", url), lambda now: now["log"])
    process = await process_of(prefect, flow_run)
    process.suspend()  # which outlives its worker, and can do nothing at its end
    worker = stack.parts["worker"]
    await asyncio.to_thread(worker.kill)
    process.kill()
    gate.touch()
    await asyncio.to_thread(stack.start, worker.name)
    group = await collected(lab, activity)
    log = (await lab.ok("GET", url))["log"]

    assert told["status"] == "ongoing"
    assert log.count("another one does it from its beginning") == 2
    assert group["active"]
    assert Path(group["venv_path"]).is_dir()
    await ended_activity(lab, await lab.ok("POST", f"/api/v2/task-group/{group['id']}/delete/"))


async def test_a_cancelled_collection_is_undone(lab: Lab, prefect: PrefectClient) -> None:
    activity = await collect(lab, package="fractal-tasks-core", package_version="2.0.0")
    group = await lab.ok("GET", f"/api/v2/task-group/{activity['taskgroupv2_id']}/")
    await eventually(lambda: asyncio.to_thread(Path(group["venv_path"]).exists), bool)
    flow_run = await flow_run_of(prefect, activity)
    await prefect.set_flow_run_state(flow_run.id, Cancelling())
    ended = await failed(lab, activity)
    assert ended["taskgroupv2_id"] is None
    assert not Path(group["path"]).exists()
