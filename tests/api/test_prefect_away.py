"""What the REST API answers, and how soon, while Prefect hangs, refuses connections or fails."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.settings import Settings
from fractal_models.tables import JobV2, Resource, TaskGroupV2
from tests.conftest import PREFECT_AWAY

# After which Fractal's clients give up.
CLIENT_SECONDS = 5.0


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[str]:
    """The URL of somebody who takes connections, and gives this answer or none at all."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer is not None and await reader.readline() not in (b"\r\n", b""):
            pass
        writer.write(answer or b"")
        if answer is not None:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
    finally:
        server.close()


FAILURE = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module", params=["hangs", "refuses", "fails"])
async def prefect_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "refuses":
        yield PREFECT_AWAY
        return
    async with listening(FAILURE if request.param == "fails" else None) as url:
        yield url


@pytest.fixture(scope="module")
def settings(settings: Settings, prefect_url: str) -> Settings:
    return settings.model_copy(update={"prefect_api_url": prefect_url})


async def timed(asked: Awaitable[httpx.Response]) -> httpx.Response:
    """The answer, which must come in time."""
    began = time.monotonic()
    answer = await asked
    assert time.monotonic() - began < CLIENT_SECONDS
    return answer


async def test_a_resource_is_made_renamed_and_deleted_soon(admin: Any) -> None:
    local = {
        "type": "local",
        "name": f"local {uuid4()}",
        "jobs_local_dir": "/data/jobs",
        "jobs_runner_config": {},
        "tasks_local_dir": "/data/tasks",
        "tasks_python_config": {"default_version": "3.11", "versions": {"3.11": sys.executable}},
        "tasks_pixi_config": {},
    }
    made = await timed(admin.post("/admin/v2/resource/", json=local))
    url = f"/admin/v2/resource/{made.json()['id']}/"
    renamed = await timed(admin.put(url, json={**local, "name": str(uuid4())}))
    deleted = await timed(admin.delete(url))

    assert (made.status_code, renamed.status_code, deleted.status_code) == (201, 200, 204)
    assert (await admin.get(url)).status_code == 404


async def test_a_job_is_submitted_and_stopped_soon(
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[httpx.Response]],
    owner: Any,
    session: AsyncSession,
) -> None:
    made = await timed(submit(runnable, dataset))
    assert made.status_code == 202
    row = await session.get_one(JobV2, made.json()["id"])
    assert "Waiting: Prefect, the workflow engine, does not answer." in str(row.log)

    row.flow_run_id = uuid4()  # as if Prefect had answered by then
    await session.commit()
    url = f"/api/v2/project/{row.project_id}/job/{row.id}"
    for what in ("pause", "continue"):
        answer = await timed(owner.post(f"{url}/{what}/"))
        assert answer.status_code == 503
        assert "nothing was changed" in answer.json()["detail"]
    stopped = await timed(owner.get(f"{url}/stop/"))
    await session.refresh(row)
    assert (stopped.status_code, row.status) == (202, "submitted")
    assert row.stop_reason is not None


async def test_an_administrator_is_told_soon_that_a_job_cannot_be_ended_now(
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[httpx.Response]],
    admin: Any,
    session: AsyncSession,
) -> None:
    row = await session.get_one(JobV2, (await submit(runnable, dataset)).json()["id"])
    row.flow_run_id = uuid4()
    await session.commit()

    answer = await timed(admin.patch(f"/admin/v2/job/{row.id}/", json={"status": "failed"}))

    await session.refresh(row)
    assert (answer.status_code, row.status) == (503, "submitted")


async def test_a_schedule_is_refused_soon(
    runnable: dict[str, Any], dataset: dict[str, Any], owner: Any
) -> None:
    url = f"/api/v2/project/{runnable['project_id']}/schedule/"
    wanted = {
        "workflow_id": runnable["id"],
        "dataset_id": dataset["id"],
        "when": [{"cron": "0 3 * * *"}],
    }
    answer = await timed(owner.post(url, json=wanted))
    assert answer.status_code == 503


async def test_a_task_group_stays_as_it_is(
    owner: Any,
    new_group: Callable[..., Awaitable[TaskGroupV2]],
    session: AsyncSession,
) -> None:
    group = await new_group()
    url = f"/api/v2/task-group/{group.id}"
    for method, path in (("POST", f"{url}/deactivate/"), ("POST", f"{url}/delete/")):
        answer = await timed(owner.request(method, path))
        assert answer.status_code == 503
    await session.refresh(group)
    assert group.active
    activities = await owner.ok("GET", "/api/v2/task-group/activity/")
    assert [each for each in activities if each["taskgroupv2_id"] == group.id] == []


async def test_who_does_not_need_prefect_does_not_wait_for_it(
    owner: Any, resource: Resource, project: dict[str, Any]
) -> None:
    answer = await timed(owner.get(f"/api/v2/project/{project['id']}/"))
    assert answer.status_code == 200
