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
    ("order", "expected"), [(None, "abcxy"), (0, "xyabc"), (2, "abxyc"), (3, "abcxy")]
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
    assert made["meta_parallel"] is None
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
        ("compound", {"type_filters": {"is_3D": "no"}}, "boolean"),
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

    assert (await owner.post(base, json=[])).status_code == 422
    assert (await owner.post(base, json=[{"task_id": 999}])).status_code == 404
    for order in (-1, 4):
        answer = await owner.post(base, json=[{"task_id": task_id}], params={"order": order})
        assert answer.status_code == 422
        assert "0 to 3" in answer.json()["detail"]


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
