"""Workflows and the tasks in them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fractal_models.tables import TaskGroupV2

COMMANDS: dict[str, dict[str, Any]] = {
    "parallel": {"command_parallel": "true"},
    "non_parallel": {"command_non_parallel": "true"},
    "compound": {"command_non_parallel": "true", "command_parallel": "true"},
    "converter_non_parallel": {"command_non_parallel": "true", "type": "converter_non_parallel"},
}


def url(workflow: dict[str, Any]) -> str:
    return f"/api/v2/project/{workflow['project_id']}/workflow/{workflow['id']}/"


def aliases(workflow: dict[str, Any]) -> list[str]:
    assert [task["order"] for task in workflow["task_list"]] == list(
        range(len(workflow["task_list"]))
    )
    return [task["alias"] for task in workflow["task_list"]]


@pytest.fixture
async def alphabet(
    owner: Any, workflow: dict[str, Any], new_task: Callable[..., Awaitable[Any]]
) -> dict[str, Any]:
    """A workflow with tasks of the aliases a, b, c."""
    task = await new_task()
    tasks = [{"task_id": task["id"], "alias": alias} for alias in "abc"]
    await owner.ok("POST", f"{url(workflow)}wftask/", json=tasks)
    return await owner.ok("GET", url(workflow))


async def test_a_workflow_is_made_changed_and_deleted(owner: Any, project: dict[str, Any]) -> None:
    base = f"/api/v2/project/{project['id']}/workflow/"
    made = await owner.ok("POST", base, json={"name": "w", "description": "text"})

    changed = await owner.ok("PATCH", url(made), json={"name": "v", "description": None})
    await owner.ok("POST", f"{url(made)}star/")
    starred = await owner.ok("GET", url(made))
    await owner.ok("POST", f"{url(made)}unstar/")

    assert (made["project"], made["task_list"]) == (project, [])
    assert (changed["name"], changed["description"]) == ("v", None)
    assert starred == {**changed, "is_starred": True}
    assert await owner.ok("GET", base) == [changed]
    assert (await owner.delete(url(made))).status_code == 204
    assert await owner.ok("GET", base) == []


async def test_workflow_names_are_unique_in_a_project(owner: Any, workflow: dict[str, Any]) -> None:
    base = f"/api/v2/project/{workflow['project_id']}/workflow/"
    other = await owner.ok("POST", base, json={"name": "another"})

    assert (await owner.post(base, json={"name": workflow["name"]})).status_code == 422
    assert (await owner.patch(url(other), json={"name": workflow["name"]})).status_code == 422
    assert (await owner.patch(url(other), json={"name": "another"})).status_code == 200


@pytest.mark.parametrize(
    ("order", "expected"), [(None, "abcxy"), (0, "xyabc"), (2, "abxyc"), (3, "abcxy"), (9, "abcxy")]
)
async def test_tasks_are_inserted_at_their_place(
    order: int | None, expected: str, owner: Any, alphabet: dict[str, Any]
) -> None:
    task_id = alphabet["task_list"][0]["task_id"]
    tasks = [{"task_id": task_id, "alias": alias} for alias in "xy"]
    query = {} if order is None else {"order": order}

    new = await owner.ok("POST", f"{url(alphabet)}wftask/", json=tasks, params=query)

    assert aliases(await owner.ok("GET", url(alphabet))) == list(expected)
    assert [task["alias"] for task in new] == ["x", "y"]
    assert [task["order"] for task in new] == [expected.index("x"), expected.index("y")]


async def test_tasks_are_taken_out_and_the_rest_moves_up(
    owner: Any, alphabet: dict[str, Any]
) -> None:
    first = alphabet["task_list"][0]

    answer = await owner.delete(f"{url(alphabet)}wftask/{first['id']}/")

    assert answer.status_code == 204
    assert aliases(await owner.ok("GET", url(alphabet))) == ["b", "c"]
    assert (await owner.get(f"{url(alphabet)}wftask/{first['id']}/")).status_code == 404


async def test_tasks_are_reordered(owner: Any, alphabet: dict[str, Any]) -> None:
    a, b, c = (task["id"] for task in alphabet["task_list"])

    changed = await owner.ok("PATCH", url(alphabet), json={"reordered_workflowtask_ids": [c, a, b]})

    assert aliases(changed) == ["c", "a", "b"]
    assert aliases(await owner.ok("GET", url(alphabet))) == ["c", "a", "b"]
    for wrong in ([a, b], [a, b, b], [a, b, c, c], []):
        answer = await owner.patch(url(alphabet), json={"reordered_workflowtask_ids": wrong})
        assert answer.status_code == 422


async def test_a_workflow_task_keeps_what_it_is_given(
    owner: Any, workflow: dict[str, Any], new_task: Callable[..., Awaitable[Any]]
) -> None:
    task = await new_task(**COMMANDS["compound"], meta_parallel={"mem": 1})
    given = {
        "alias": "alias",
        "description": "text",
        "args_non_parallel": {"x": [1]},
        "args_parallel": {"y": {"z": None}},
        "meta_non_parallel": {"cpus_per_task": 2},
        "type_filters": {"is_3D": True},
    }

    [made] = await owner.ok(
        "POST", f"{url(workflow)}wftask/", json=[{"task_id": task["id"], **given}]
    )
    one = f"{url(workflow)}wftask/{made['id']}/"
    changed = await owner.ok("PATCH", one, json={"alias": None, "args_parallel": {"y": 1}})

    assert given.items() <= made.items()
    assert made["meta_parallel"] == {"mem": 1}
    assert made["task"] == task
    assert made["task_type"] == "compound"
    assert changed == {**made, "alias": None, "args_parallel": {"y": 1}}
    assert await owner.ok("GET", one) == changed


@pytest.mark.parametrize(
    ("task_type", "fields", "told"),
    [
        ("parallel", {"args_non_parallel": {}}, "takes no args_non_parallel"),
        ("parallel", {"meta_non_parallel": {}}, "takes no meta_non_parallel"),
        ("non_parallel", {"args_parallel": {}}, "takes no args_parallel"),
        ("non_parallel", {"meta_parallel": {}}, "takes no meta_parallel"),
        ("converter_non_parallel", {"args_parallel": {}}, "takes no args_parallel"),
        ("compound", {"type_filters": {"is_3D": False}}, "contradict"),
        ("compound", {"type_filters": {"is_3D": "flat"}}, "boolean"),
        ("compound", {"alias": ""}, "at least 1"),
    ],
)
async def test_a_workflow_task_must_fit_its_task(
    task_type: str,
    fields: dict[str, Any],
    told: str,
    owner: Any,
    workflow: dict[str, Any],
    new_task: Callable[..., Awaitable[Any]],
) -> None:
    task = await new_task(**COMMANDS[task_type], input_types={"is_3D": True})
    base = f"{url(workflow)}wftask/"
    [made] = await owner.ok("POST", base, json=[{"task_id": task["id"]}])

    new = await owner.post(base, json=[{"task_id": task["id"]}, {"task_id": task["id"], **fields}])
    change = await owner.patch(f"{base}{made['id']}/", json=fields)

    for answer in (new, change):
        assert answer.status_code == 422
        assert told in str(answer.json()["detail"])
    assert len((await owner.ok("GET", url(workflow)))["task_list"]) == 1


async def test_wrong_requests_for_tasks_are_refused(owner: Any, alphabet: dict[str, Any]) -> None:
    base = f"{url(alphabet)}wftask/"
    task_id = alphabet["task_list"][0]["task_id"]
    reserved = {"task_id": task_id, "args_parallel": {"zarr_url": "/x", "init_args": {}}}

    assert (await owner.post(base, json=[{"task_id": 999}])).status_code == 404
    backwards = await owner.post(base, json=[{"task_id": task_id}], params={"order": -1})
    assert backwards.status_code == 422
    answer = await owner.post(base, json=[reserved])
    assert answer.status_code == 422
    assert "init_args, zarr_url cannot be set" in answer.text
    assert aliases(await owner.ok("GET", url(alphabet))) == ["a", "b", "c"]


async def test_a_private_task_of_another_user_is_not_found(
    workflow: dict[str, Any],
    project: dict[str, Any],
    new_task: Callable[..., Awaitable[Any]],
    new_person: Callable[..., Awaitable[Any]],
    invite: Callable[..., Awaitable[None]],
) -> None:
    task = await new_task(query={"private": True})
    guest = await new_person()
    await invite(guest, project, "rwx")

    answer = await guest.post(f"{url(workflow)}wftask/", json=[{"task_id": task["id"]}])

    assert answer.status_code == 404


async def test_an_inactive_task_is_refused_and_warned_of(
    owner: Any, runnable: dict[str, Any], dataset: dict[str, Any], submit: Any, session: Any
) -> None:
    [workflow_task] = runnable["task_list"]
    group = await session.get_one(TaskGroupV2, workflow_task["task"]["taskgroupv2_id"])
    group.active = False
    await session.commit()

    [shown] = (await owner.ok("GET", url(runnable)))["task_list"]
    new = await owner.post(f"{url(runnable)}wftask/", json=[{"task_id": workflow_task["task_id"]}])

    assert workflow_task["warning"] is None
    assert shown["warning"] == "The task is not active."
    assert new.status_code == 422
    assert "not active" in new.json()["detail"]
    assert (await submit(runnable, dataset)).status_code == 422


async def test_while_a_job_runs_its_tasks_are_edited_but_not_deleted(
    owner: Any, runnable: dict[str, Any], dataset: dict[str, Any], submit: Any
) -> None:
    one = f"{url(runnable)}wftask/{runnable['task_list'][0]['id']}/"
    job = (await submit(runnable, dataset)).json()

    assert (await owner.patch(one, json={"alias": "edited"})).status_code == 200
    for gone in (one, url(runnable)):
        answer = await owner.delete(gone)
        assert answer.status_code == 422
        assert f"Job {job['id']}" in answer.json()["detail"]


async def test_arguments_that_do_not_fit_are_warned_of(
    owner: Any, workflow: dict[str, Any], dataset: dict[str, Any], new_task: Any, submit: Any
) -> None:
    schema = {"properties": {"level": {"type": "integer"}}, "required": ["zarr_url", "level"]}
    task = await new_task(args_schema_parallel=schema)
    [made] = await owner.ok("POST", f"{url(workflow)}wftask/", json=[{"task_id": task["id"]}])

    [missing] = (await owner.ok("GET", url(workflow)))["task_list"]
    one = f"{url(workflow)}wftask/{made['id']}/"
    await owner.ok("PATCH", one, json={"args_parallel": {"level": 1}})
    [fits] = (await owner.ok("GET", url(workflow)))["task_list"]
    emptied = await owner.ok("PATCH", one, json={"args_parallel": {}})

    assert missing["warning"] == "args_parallel: level is required and not set."
    assert fits["warning"] is None
    assert emptied["args_parallel"] is None
    assert (await submit(workflow, dataset)).status_code == 202


async def test_starred_workflows_come_first_then_by_name(
    owner: Any, project: dict[str, Any]
) -> None:
    base = f"/api/v2/project/{project['id']}/workflow/"
    made = {name: await owner.ok("POST", base, json={"name": name}) for name in "cabd"}
    await owner.ok("POST", f"{url(made['d'])}star/")

    assert [each["name"] for each in await owner.ok("GET", base)] == ["d", "a", "b", "c"]


async def test_type_filters_flow_from_task_to_task(
    owner: Any, workflow: dict[str, Any], new_task: Any
) -> None:
    copy = await new_task(output_types={"copy": True, "is_3D": True})
    project = await new_task(input_types={"is_3D": True}, output_types={"is_3D": False})
    empty = await owner.get(f"{url(workflow)}type-filters-flow/")
    made = await owner.ok(
        "POST",
        f"{url(workflow)}wftask/",
        json=[
            {"task_id": copy["id"], "type_filters": {"raw": True}},
            {"task_id": project["id"]},
            {"task_id": copy["id"]},
        ],
    )

    flow = await owner.ok("GET", f"{url(workflow)}type-filters-flow/")

    assert empty.status_code == 422
    assert [each["workflowtask_id"] for each in flow] == [each["id"] for each in made]
    assert [each["current_type_filters"] for each in flow] == [
        {},
        {"copy": True, "is_3D": True},
        {"copy": True, "is_3D": False},
    ]
    assert [each["input_type_filters"] for each in flow] == [{"raw": True}, {"is_3D": True}, {}]
    assert flow[1]["output_type_filters"] == {"is_3D": False}
    await owner.ok("PATCH", f"/api/v2/task/{copy['id']}/", json={"input_types": {"raw": False}})
    contradiction = await owner.get(f"{url(workflow)}type-filters-flow/")
    assert contradiction.status_code == 422
    assert "contradict" in contradiction.json()["detail"]


async def test_newer_versions_of_a_task_can_take_its_place(
    owner: Any, new_person: Any, workflow: dict[str, Any], new_task: Any, session: Any
) -> None:
    schema = {"args_schema_parallel": {"type": "object"}}
    versions = ["1.9", "1.10", "2.0rc1", "1.2", "dev", "1.11"]
    tasks = {
        version: await new_task(name="Versioned", version=version, **schema) for version in versions
    }
    await new_task(name="Versioned", version="3", command_non_parallel="true")
    await new_task(name="Versioned", version="4")
    other = await new_person()
    private = {"name": "Versioned", "version": "5", "command_parallel": "true", **schema}
    await other.ok("POST", "/api/v2/task/", json=private, params={"private": True})
    group = await session.get_one(TaskGroupV2, tasks["1.11"]["taskgroupv2_id"])
    group.active = False
    await session.commit()
    used = [tasks["1.9"], tasks["dev"], tasks["2.0rc1"], await new_task(version="0")]
    await owner.ok(
        "POST", f"{url(workflow)}wftask/", json=[{"task_id": task["id"]} for task in used]
    )

    candidates = await owner.ok("GET", f"{url(workflow)}version-update-candidates/")

    assert candidates == [
        [
            {"task_id": tasks["1.10"]["id"], "version": "1.10"},
            {"task_id": tasks["2.0rc1"]["id"], "version": "2.0rc1"},
        ],
        [],
        [],
        [],
    ]


async def test_a_task_is_replaced_by_another_version(
    owner: Any, alphabet: dict[str, Any], new_task: Any
) -> None:
    old = alphabet["task_list"][1]
    one = f"{url(alphabet)}wftask/{old['id']}/"
    mine = {"args_parallel": {"a": 1}, "meta_parallel": {"mem": 7}, "description": "text"}
    await owner.ok("PATCH", one, json={**mine, "type_filters": {"raw": True}})
    new = await new_task(version="2", meta_parallel={"mem": 1, "time": "1:00"})
    query = {"workflow_task_id": old["id"], "task_id": new["id"]}
    replace = f"{url(alphabet)}wftask/replace-task/"

    kept = await owner.ok("POST", replace, params=query, json={})
    changed = await owner.ok("POST", replace, params=query, json={"args_parallel": {"b": 2}})

    assert kept["task"] == new
    assert kept["task_id"] == new["id"]
    assert kept["args_parallel"] == {"a": 1}
    assert kept["meta_parallel"] == {"mem": 7, "time": "1:00"}
    assert (kept["alias"], kept["description"]) == ("b", "text")
    assert kept["type_filters"] == {"raw": True}
    assert (kept["id"], kept["order"]) == (old["id"], 1)
    assert changed == {**kept, "args_parallel": {"b": 2}}
    assert await owner.ok("GET", one) == changed


async def test_a_replacement_that_does_not_fit_changes_nothing(
    owner: Any, new_person: Any, alphabet: dict[str, Any], new_task: Any, session: Any
) -> None:
    old = alphabet["task_list"][0]
    other_type = await new_task(command_non_parallel="true")
    inactive, fits = await new_task(), await new_task()
    private = await (await new_person()).ok(
        "POST",
        "/api/v2/task/",
        json={"name": "p", "version": "1", "command_parallel": "true"},
        params={"private": True},
    )
    group = await session.get_one(TaskGroupV2, inactive["taskgroupv2_id"])
    group.active = False
    await session.commit()

    async def status(task: dict[str, Any], **arguments: Any) -> int:
        answer = await owner.post(
            f"{url(alphabet)}wftask/replace-task/",
            params={"workflow_task_id": old["id"], "task_id": task["id"]},
            json=arguments,
        )
        return int(answer.status_code)

    assert await status(other_type) == 422
    assert await status(inactive) == 422
    assert await status(private) == 404
    assert await status(fits, args_non_parallel={"x": 1}) == 422
    assert await status(fits, args_parallel={"zarr_url": "/x"}) == 422
    assert (await owner.ok("GET", url(alphabet)))["task_list"][0] == old
