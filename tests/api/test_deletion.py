"""Deletion of task groups: who may, and what is refused. There is no Prefect here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from fractal_models.groups import default_group
from fractal_models.settings import Settings
from fractal_models.tables import TaskGroupActivityV2, TaskGroupV2

NewGroup = Callable[..., Awaitable[TaskGroupV2]]
_DELETE_WORKFLOW_TASK = text("DELETE FROM workflowtaskv2 WHERE id = :id")


def url(group_id: int | None, area: str = "/api") -> str:
    return f"{area}/v2/task-group/{group_id}/delete/"


@pytest.mark.parametrize("area", ["/api", "/admin"])
async def test_a_group_without_environment_of_ours_goes_at_once(
    area: str, owner: Any, admin: Any, new_task: Callable[..., Awaitable[Any]]
) -> None:
    person = owner if area == "/api" else admin
    task = await new_task()

    answer = await person.post(url(task["taskgroupv2_id"], area))

    assert answer.status_code == 202
    activity = answer.json()
    assert (activity["action"], activity["status"]) == ("delete", "OK")
    assert activity["taskgroupv2_id"] is None
    assert (await owner.get(f"/api/v2/task/{task['id']}/")).status_code == 404
    assert (await owner.get(f"/api/v2/task-group/{task['taskgroupv2_id']}/")).status_code == 404
    kept = await person.ok("GET", f"/api/v2/task-group/activity/{activity['id']}/")
    assert kept == activity


@pytest.mark.parametrize("area", ["/api", "/admin"])
async def test_a_group_that_workflows_use_stays(
    area: str, owner: Any, admin: Any, runnable: dict[str, Any]
) -> None:
    person = owner if area == "/api" else admin
    group_id = runnable["task_list"][0]["task"]["taskgroupv2_id"]

    answer = await person.post(url(group_id, area))

    assert answer.status_code == 422
    assert "1 workflows" in answer.json()["detail"]
    assert (await owner.ok("GET", f"/api/v2/task-group/{group_id}/"))["active"]


async def test_a_group_that_a_job_uses_stays_also_without_the_workflow_task(
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
    session: Any,
) -> None:
    job = (await submit(runnable, dataset)).json()
    [workflow_task] = runnable["task_list"]
    await session.execute(_DELETE_WORKFLOW_TASK, {"id": workflow_task["id"]})
    await session.commit()

    answer = await owner.post(url(workflow_task["task"]["taskgroupv2_id"]))

    assert answer.status_code == 422
    assert f"Job {job['id']} uses" in answer.json()["detail"]


async def test_a_group_to_which_something_is_done_stays(
    owner: Any, new_group: NewGroup, session: Any
) -> None:
    group = await new_group()
    fields = {"pkg_name": group.pkg_name, "version": "1.0", "action": "deactivate"}
    session.add(
        TaskGroupActivityV2(
            user_id=group.user_id, taskgroupv2_id=group.id, status="pending", **fields
        )
    )
    await session.commit()

    answer = await owner.post(url(group.id))

    assert answer.status_code == 422
    assert "has not ended" in answer.json()["detail"]


@pytest.mark.parametrize("active", [True, False])
async def test_without_prefect_a_group_stays_as_it_is(
    active: bool, owner: Any, new_group: NewGroup, session: Any
) -> None:
    group = await new_group(active=active)

    assert (await owner.post(url(group.id))).status_code == 503

    await session.refresh(group)
    assert group.active == active
    activities = await owner.ok("GET", f"/api/v2/task-group/activity/?taskgroupv2_id={group.id}")
    assert activities == []


async def test_only_the_owner_and_administrators_may(
    admin: Any,
    new_person: Callable[..., Awaitable[Any]],
    new_group: NewGroup,
    session: Any,
    settings: Settings,
) -> None:
    other = await new_person()
    everybody = await default_group(session, settings.default_group)
    private = await new_group()
    shared = await new_group(user_group_id=everybody.id)

    assert (await other.post(url(private.id))).status_code == 404
    assert (await other.post(url(shared.id))).status_code == 403
    assert (await other.post(url(shared.id, "/admin"))).status_code == 403
    assert (await admin.post(url(0, "/admin"))).status_code == 404


async def test_of_a_deletion_and_a_new_use_of_a_task_one_is_refused(
    owner: Any,
    workflow: dict[str, Any],
    new_task: Callable[..., Awaitable[Any]],
) -> None:
    use = f"/api/v2/project/{workflow['project_id']}/workflow/{workflow['id']}/wftask/"
    for _ in range(5):
        task = await new_task()
        answers = await asyncio.gather(
            owner.post(use, json=[{"task_id": task["id"]}]),
            owner.post(url(task["taskgroupv2_id"])),
        )
        assert [answer.status_code for answer in answers] in ([201, 422], [404, 202])


async def test_of_two_deletions_at_a_time_the_second_finds_nothing(
    owner: Any, new_task: Callable[..., Awaitable[Any]]
) -> None:
    task = await new_task()
    answers = await asyncio.gather(*(owner.post(url(task["taskgroupv2_id"])) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [202, 404, 404]
