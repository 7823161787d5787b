"""Workflows that leave, and that come from elsewhere."""

from typing import Any

import pytest

from fractal_models.tables import LinkUserGroup, TaskGroupV2


def base(project: dict[str, Any]) -> str:
    return f"/api/v2/project/{project['id']}/workflow/"


def entry(task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A task in the document of a workflow."""
    name = {"pkg_name": task["name"], "version": task["version"], "name": task["name"]}
    return {"task": name, **fields}


async def deactivate(session: Any, task: dict[str, Any]) -> None:
    group = await session.get_one(TaskGroupV2, task["taskgroupv2_id"])
    group.active = False
    await session.commit()


async def test_what_is_exported_can_be_imported(
    owner: Any, project: dict[str, Any], workflow: dict[str, Any], new_task: Any
) -> None:
    both = {"command_non_parallel": "true", "command_parallel": "true"}
    first, second = await new_task(**both, meta_parallel={"mem": 1}), await new_task()
    fields = {
        "alias": "a",
        "description": "text",
        "args_non_parallel": {"x": 1},
        "args_parallel": {"y": [None]},
        "meta_non_parallel": {"mem": 2},
        "type_filters": {"is_3D": True},
    }
    tasks = [{"task_id": first["id"], **fields}, {"task_id": second["id"]}]
    one = f"{base(project)}{workflow['id']}/"
    await owner.ok("POST", f"{one}wftask/", json=tasks)

    document = await owner.ok("GET", f"{one}export/")
    made = await owner.ok("POST", f"{base(project)}import/", json={**document, "name": "again"})

    plain = dict.fromkeys(fields) | {"type_filters": {}, "meta_parallel": None}
    assert document == {
        "name": "workflow",
        "description": None,
        "task_list": [
            entry(first, **fields, meta_parallel={"mem": 1}),
            entry(second, **plain),
        ],
    }
    assert await owner.ok("GET", f"{base(project)}{made['id']}/") == made
    assert [task["order"] for task in made["task_list"]] == [0, 1]
    assert [task["task"] for task in made["task_list"]] == [first, second]
    assert [task["warning"] for task in made["task_list"]] == [None, None]
    again = await owner.ok("GET", f"{base(project)}{made['id']}/export/")
    assert again == {**document, "name": "again"}


async def test_all_tasks_that_are_missing_are_named_with_other_versions(
    owner: Any, project: dict[str, Any], new_task: Any, session: Any
) -> None:
    versions = {
        version: await new_task(name="Known", version=version) for version in ["1", "3", "x"]
    }
    await deactivate(session, versions["3"])
    unknown = {"pkg_name": "Known", "version": "1", "name": "Unknown"}
    document = {
        "name": "w",
        "task_list": [
            entry(versions["1"]),
            entry({**versions["1"], "version": "2"}),
            {"task": unknown},
            {"task": {"pkg_name": "Known", "name": "Known"}},
        ],
    }

    answer = await owner.post(f"{base(project)}import/", json=document)

    def available(version: str, *, older: bool, active: bool = True) -> dict[str, Any]:
        told = {"version": version, "older_than_target": older, "active": active}
        return {**told, "is_core": False}

    known = {"pkg_name": "Known", "task_name": "Known"}
    assert answer.status_code == 422
    assert answer.json()["detail"] == "[HAS_ERROR_DATA]"
    found, other_version, not_there, no_version = answer.json()["data"]
    assert found == {
        **known,
        "outcome": "success",
        "version": "1",
        "task_id": versions["1"]["id"],
    }
    assert other_version == {
        **known,
        "outcome": "fail",
        "version": "2",
        "available_tasks": [
            available("3", older=False, active=False),
            available("1", older=True),
            available("x", older=True),
        ],
    }
    assert not_there["task_name"] == "Unknown"
    assert not_there["available_tasks"] == []
    assert no_version["version"] is None
    assert [each["version"] for each in no_version["available_tasks"]] == ["3", "1", "x"]
    assert await owner.ok("GET", base(project)) == []


async def test_own_tasks_go_before_those_of_everybody_before_those_of_other_groups(
    owner: Any,
    admin: Any,
    new_person: Any,
    new_task: Any,
    project: dict[str, Any],
    session: Any,
) -> None:
    async def group_of(person: Any, name: str) -> int:
        group = await admin.ok("POST", "/auth/group/", json={"name": name})
        session.add(LinkUserGroup(group_id=group["id"], user_id=person.user.id))
        session.add(LinkUserGroup(group_id=group["id"], user_id=owner.user.id))
        await session.commit()
        return int(group["id"])

    async def offered(person: Any, **query: Any) -> dict[str, Any]:
        task = {"name": "Same", "version": "1", "command_parallel": "true"}
        made: dict[str, Any] = await person.ok("POST", "/api/v2/task/", json=task, params=query)
        return made

    people = [await new_person() for _ in range(4)]
    older, newer = await group_of(people[0], "older"), await group_of(people[1], "newer")
    private = await offered(people[3], private=True)
    of_older = await offered(people[0], user_group_id=older)
    of_newer = await offered(people[1], user_group_id=newer)
    of_everybody = await offered(people[2])
    mine = await new_task(query={"private": True}, name="Same")
    chosen = []

    async def choose(without: dict[str, Any]) -> None:
        await deactivate(session, without)
        document = {"name": f"without {without['id']}", "task_list": [entry(mine)]}
        made = await owner.ok("POST", f"{base(project)}import/", json=document)
        chosen.append((made["task_list"][0]["task_id"], made["task_list"][0]["warning"]))

    for without in (private, mine, of_everybody, of_older, of_newer):
        await choose(without)

    assert chosen == [
        (mine["id"], None),
        (of_everybody["id"], None),
        (of_older["id"], None),
        (of_newer["id"], None),
        (mine["id"], "The task is not active."),
    ]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"input_filters": {"attributes": {"well": "A"}, "types": {}}}, "no attribute filters"),
        ({"input_filters": {"types": {}}, "type_filters": {}}, "not both"),
        ({"input_filters": {"types": {"raw": 2}}}, "boolean"),
        ({"args_parallel": {"zarr_url": "/x"}}, "cannot be set"),
        ({"type_filters": {"is_3D": False}}, "contradict"),
        ({"unknown": 1}, "Extra inputs"),
        ({"task": {"pkg_name": "x"}}, "required"),
        ({"task": None}, "valid dictionary"),
    ],
)
async def test_a_workflow_that_is_wrong_is_not_imported(
    fields: dict[str, Any], told: str, owner: Any, project: dict[str, Any], new_task: Any
) -> None:
    task = await new_task(input_types={"is_3D": True})
    document = {"name": "w", "task_list": [{**entry(task), **fields}]}

    answer = await owner.post(f"{base(project)}import/", json=document)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])
    assert await owner.ok("GET", base(project)) == []


@pytest.mark.parametrize(
    ("fields", "filters"),
    [
        ({"input_filters": {"attributes": {}, "types": {"raw": True}}}, {"raw": True}),
        ({"input_filters": {}}, {}),
        ({"input_filters": None, "type_filters": {"raw": False}}, {"raw": False}),
        ({"type_filters": None}, {}),
    ],
)
async def test_filters_of_older_installations_are_understood(
    fields: dict[str, Any],
    filters: dict[str, bool],
    owner: Any,
    project: dict[str, Any],
    new_task: Any,
) -> None:
    document = {"name": "w", "task_list": [entry(await new_task(), **fields)]}

    made = await owner.ok("POST", f"{base(project)}import/", json=document)

    assert made["task_list"][0]["type_filters"] == filters


async def test_an_imported_workflow_needs_a_new_name_and_the_right_to_write(
    owner: Any,
    new_person: Any,
    project: dict[str, Any],
    workflow: dict[str, Any],
    invite: Any,
) -> None:
    guest = await new_person()
    await invite(guest, project, "r")
    document = {"name": workflow["name"], "task_list": []}
    url = f"{base(project)}import/"

    assert (await owner.post(url, json=document)).status_code == 422
    assert (await guest.post(url, json={**document, "name": "w"})).status_code == 403
    assert (await guest.get(f"{base(project)}{workflow['id']}/export/")).status_code == 200
    assert (await (await new_person()).post(url, json=document)).status_code == 404
    assert (await owner.post(url, json={**document, "name": "w\0"})).status_code == 422
