"""Core tasks: who makes them, and that each name is core once per package version."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

NewTask = Callable[..., Awaitable[dict[str, Any]]]


async def core(admin: Any, *tasks: dict[str, Any]) -> list[bool]:
    return [
        (await admin.ok("GET", f"/admin/v2/task/?id={task['id']}"))["items"][0]["task"]["is_core"]
        for task in tasks
    ]


async def test_tasks_become_core_and_not_core_together(admin: Any, new_task: NewTask) -> None:
    one, two, other = await new_task(), await new_task(), await new_task()
    ids = [one["id"], two["id"]]
    await admin.ok("POST", "/admin/v2/task/make-core/", json=ids)
    await admin.ok("POST", "/admin/v2/task/make-core/", json=ids)  # once more changes nothing
    assert await core(admin, one, two, other) == [True, True, False]
    await admin.ok("POST", "/admin/v2/task/make-not-core/", json=[two["id"]])
    assert await core(admin, one, two, other) == [True, False, False]


async def test_all_tasks_of_a_group_become_core_and_not_core(admin: Any, new_task: NewTask) -> None:
    task = await new_task()
    url = f"/admin/v2/task-group/{task['taskgroupv2_id']}"
    await admin.ok("POST", f"{url}/make-core/")
    assert await core(admin, task) == [True]
    await admin.ok("POST", f"{url}/make-not-core/")
    assert await core(admin, task) == [False]


async def test_a_task_of_one_name_and_package_version_is_core_once(
    admin: Any, new_task: NewTask, new_person: Callable[..., Awaitable[Any]]
) -> None:
    mine = await new_task(name="the same", query={"private": True})
    body = {"name": "the same", "version": "1", "command_parallel": "x"}
    theirs = await (await new_person()).ok("POST", "/api/v2/task/?private=true", json=body)
    newer = await new_task(name="the same", version="2")

    both = await admin.post("/admin/v2/task/make-core/", json=[mine["id"], theirs["id"]])
    assert both.status_code == 422
    assert f"{mine['id']}, {theirs['id']}" in both.json()["detail"]
    assert await core(admin, mine, theirs) == [False, False]
    await admin.ok("POST", "/admin/v2/task/make-core/", json=[mine["id"], newer["id"]])
    group = f"/admin/v2/task-group/{theirs['taskgroupv2_id']}"
    assert (await admin.post(f"{group}/make-core/")).status_code == 422
    await admin.ok("POST", "/admin/v2/task/make-not-core/", json=[mine["id"]])
    await admin.ok("POST", f"{group}/make-core/")
    assert await core(admin, mine, theirs, newer) == [False, True, True]


@pytest.mark.parametrize("action", ["make-core", "make-not-core"])
async def test_of_tasks_that_are_not_all_there_none_is_changed(
    action: str, admin: Any, new_task: NewTask
) -> None:
    task, is_core = await new_task(), action == "make-not-core"
    if is_core:
        await admin.ok("POST", "/admin/v2/task/make-core/", json=[task["id"]])
    url = f"/admin/v2/task/{action}/"

    missing = await admin.post(url, json=[task["id"], 999_999])
    assert missing.status_code == 404
    assert "999999" in missing.json()["detail"]
    assert await core(admin, task) == [is_core]
    for ids in ([], [task["id"], task["id"]], [-1], ["x"], [10**12], {}):
        assert (await admin.post(url, json=ids)).status_code == 422
    for group in (999_999, 10**12):
        answer = await admin.post(f"/admin/v2/task-group/{group}/{action}/")
        assert answer.status_code in (404, 422)


async def test_only_administrators_decide(owner: Any, new_task: NewTask) -> None:
    task = await new_task()
    for action in ("make-core", "make-not-core"):
        one = await owner.post(f"/admin/v2/task/{action}/", json=[task["id"]])
        group = await owner.post(f"/admin/v2/task-group/{task['taskgroupv2_id']}/{action}/")
        assert (one.status_code, group.status_code) == (403, 403)
