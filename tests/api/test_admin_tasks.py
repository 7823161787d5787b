"""What administrators find: tasks, task groups and activities of all users."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import TaskGroupActivityV2, TaskGroupV2

NewTask = Callable[..., Awaitable[dict[str, Any]]]
GROUPS, TASKS = "/admin/v2/task-group/", "/admin/v2/task/"


async def found(admin: Any, url: str, **query: Any) -> list[dict[str, Any]]:
    return (await admin.ok("GET", url, params=query))["items"]


async def test_task_groups_of_all_users_are_found_by_page(
    admin: Any, owner: Any, new_task: NewTask
) -> None:
    ids = [(await new_task())["taskgroupv2_id"] for _ in range(4)]
    page = await admin.ok(
        "GET", GROUPS, params={"page": 2, "page_size": 2, "user_id": owner.user.id}
    )
    everything = await found(admin, GROUPS)

    assert (page["current_page"], page["page_size"], len(page["items"])) == (2, 2, 2)
    listed = [group["id"] for group in everything]
    assert listed == sorted(listed)
    assert set(ids) <= set(listed)
    [group] = await found(admin, GROUPS, task_group_id=ids[0])
    assert (group["user_email"], group["user_id"]) == (owner.user.email, owner.user.id)
    assert group["task_list"][0]["command_parallel"] == "true"
    assert await admin.ok("GET", f"{GROUPS}{ids[0]}/") == group


async def test_task_groups_are_found_by_what_they_are(
    admin: Any, runnable: dict[str, Any], new_task: NewTask, session: Any
) -> None:
    used = runnable["task_list"][0]["task"]["taskgroupv2_id"]
    unused = (await new_task(name="Odd%Name", query={"private": True}))["taskgroupv2_id"]
    row = await session.get_one(TaskGroupV2, unused)
    row.active, row.origin = False, "pixi"
    await session.commit()

    async def which(**query: Any) -> tuple[bool, bool]:
        ids = {group["id"] for group in await found(admin, GROUPS, **query)}
        return used in ids, unused in ids

    assert await which(in_use=True) == (True, False)
    assert await which(in_use=False) == (False, True)
    assert await which(private=True) == (False, True)
    assert await which(private=False) == (True, False)
    assert await which(active=False) == (False, True)
    assert await which(active=True) == (True, False)
    assert await which(origin="pixi") == (False, True)
    assert await which(pkg_name="odd%n") == (False, True)
    assert await which(resource_id=row.resource_id) == (True, True)
    assert await which(resource_id=0) == (False, False)
    assert await which(user_group_id=0) == (False, False)
    assert await which(timestamp_last_used_min="2120-01-01T00:00:00Z") == (False, False)
    assert await which(timestamp_last_used_max="2120-01-01T00:00:00Z") == (True, True)


@pytest.mark.parametrize(
    "query",
    [
        {"private": True, "user_group_id": 1},
        {"page": 2},
        {"page": 0},
        {"page_size": 10**9},
        {"origin": "moon"},
        {"user_id": 10**12},
        {"pkg_name": "a\0b"},
        {"timestamp_last_used_min": "2120-01-01T00:00:00"},
    ],
)
async def test_what_cannot_be_asked_is_told(query: dict[str, Any], admin: Any) -> None:
    assert (await admin.get(GROUPS, params=query)).status_code == 422


async def test_an_administrator_shares_a_group_of_whoever_with_a_group_they_are_in(
    admin: Any, owner: Any, new_task: NewTask
) -> None:
    lab = await admin.ok("POST", "/auth/group/", json={"name": "of the admin"})
    url = f"{GROUPS}{(await new_task())['taskgroupv2_id']}/"

    refused = await admin.patch(url, json={"user_group_id": lab["id"]})
    await admin.ok("POST", f"/auth/group/{lab['id']}/add-user/{admin.user.id}/")
    shared = await admin.ok("PATCH", url, json={"user_group_id": lab["id"]})
    private = await admin.ok("PATCH", url, json={"user_group_id": None})

    assert refused.status_code == 403
    assert (shared["user_group_id"], shared["user_id"]) == (lab["id"], owner.user.id)
    assert private["user_group_id"] is None
    assert (await admin.patch(url, json={"active": False})).status_code == 422
    assert (await admin.patch(f"{GROUPS}999999/", json={})).status_code == 404


async def test_a_package_version_is_not_shared_twice_with_a_user_group(
    owner: Any, admin: Any, new_person: Callable[..., Awaitable[Any]], new_task: NewTask
) -> None:
    shared = await new_task(name="shared twice")
    body = {"name": "shared twice", "version": "1", "command_parallel": "x"}
    other = await new_person()
    private = await other.ok("POST", "/api/v2/task/?private=true", json=body)
    url = f"/api/v2/task-group/{shared['taskgroupv2_id']}/"
    group = (await owner.ok("GET", url))["user_group_id"]

    answer = await other.patch(
        f"/api/v2/task-group/{private['taskgroupv2_id']}/", json={"user_group_id": group}
    )
    assert answer.status_code == 422
    assert f"task group {shared['taskgroupv2_id']}" in answer.json()["detail"]
    await owner.ok("PATCH", url, json={"user_group_id": group})  # it is itself


async def test_activities_of_all_users_are_found_by_page(
    admin: Any, owner: Any, session: Any
) -> None:
    for person, name in ((owner, "first"), (admin, "second"), (owner, "third")):
        session.add(
            TaskGroupActivityV2(
                user_id=person.user.id, pkg_name=name, version="1", status="OK", action="reset"
            )
        )
    await session.commit()
    url = f"{GROUPS}activity/"

    page = await admin.ok("GET", url, params={"action": "reset", "page": 1, "page_size": 2})
    assert [each["pkg_name"] for each in page["items"]] == ["third", "second"]
    assert page["total_count"] == 3
    mine = await found(admin, url, action="reset", user_id=owner.user.id)
    assert [each["pkg_name"] for each in mine] == ["third", "first"]


async def test_a_task_is_found_with_the_workflows_that_use_it(
    admin: Any, owner: Any, runnable: dict[str, Any], invite: Any, project: dict[str, Any]
) -> None:
    await invite(admin, project, "r")
    task = runnable["task_list"][0]["task"]
    url = f"/api/v2/project/{project['id']}/workflow/{runnable['id']}/wftask/"
    await owner.ok("POST", url, json=[{"task_id": task["id"]}])  # twice in one workflow

    [info] = await found(admin, TASKS, id=task["id"])

    assert info["task"]["owner"] == owner.user.email
    assert (info["task"]["pkg_name"], info["task"]["user_group"]) == (task["name"], "All")
    assert info["relationships"] == [
        {
            "workflow_id": runnable["id"],
            "workflow_name": "workflow",
            "project_id": project["id"],
            "project_name": project["name"],
            "project_users": [{"id": owner.user.id, "email": owner.user.email}],
        }
    ]


async def test_tasks_are_found_by_what_they_are(admin: Any, owner: Any, new_task: NewTask) -> None:
    fields = {"category": "Imaging", "modality": "HCS", "authors": "A. Person"}
    task = await new_task(name="A Rare One", version="7", query={"private": True}, **fields)
    other = await new_task(command_non_parallel="x")

    async def which(**query: Any) -> tuple[bool, bool]:
        ids = {info["task"]["id"] for info in await found(admin, TASKS, **query)}
        return task["id"] in ids, other["id"] in ids

    for query in (
        {"name": "rare"},
        {"version": "7"},
        {"category": "imaging"},
        {"modality": "hcs"},
        {"author": "person"},
        {"task_group": "a rare"},
        {"private": True},
        {"task_type": "parallel"},
    ):
        assert await which(**query) == (True, False), query
    assert await which(core=False) == (True, True)
    assert await which(core=True) == (False, False)
    assert await which(active=False) == (False, False)
    assert await which(owner_id=owner.user.id) == (True, True)
    assert await which(resource_id=0) == (False, False)


async def test_many_tasks_take_no_more_queries_than_one(
    admin: Any,
    owner: Any,
    workflow: dict[str, Any],
    new_task: NewTask,
    app: Any,
) -> None:
    tasks = [await new_task(name=f"counted {number}") for number in range(5)]
    url = f"/api/v2/project/{workflow['project_id']}/workflow/{workflow['id']}/wftask/"
    await owner.ok("POST", url, json=[{"task_id": task["id"]} for task in tasks])
    sessions: async_sessionmaker[AsyncSession] = app.state.services.sessions
    engine = sessions.kw["bind"].sync_engine
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    async def number(url: str, **query: Any) -> int:
        statements.clear()
        await found(admin, url, **query)
        return len(statements)

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert await number(TASKS, name="counted") == await number(TASKS, name="counted 1")
        groups = await number(GROUPS, pkg_name="counted")
        assert groups == await number(GROUPS, pkg_name="counted 1")
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_only_administrators_find_them(owner: Any) -> None:
    for url in (GROUPS, f"{GROUPS}activity/", f"{GROUPS}1/", TASKS):
        assert (await owner.get(url)).status_code == 403
