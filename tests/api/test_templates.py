"""Workflow templates."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fractal_models.schemas.base import CONTRACT_VERSION
from fractal_models.tables import TaskGroupV2

URL = "/api/v2/workflow-template/"


@pytest.fixture
def new_template(owner: Any, runnable: dict[str, Any]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Makes a template of a workflow with one task."""

    async def make(name: str, version: int = 1, **query: Any) -> dict[str, Any]:
        made: dict[str, Any] = await owner.ok(
            "POST",
            URL,
            params={"workflow_id": runnable["id"], **query},
            json={"name": name, "version": version, "description": "text"},
        )
        return made

    return make


@pytest.fixture
async def group(admin: Any, owner: Any, new_person: Any, request: Any) -> dict[str, Any]:
    """A group of the owner."""
    name = f"group of {request.node.name}"
    group: dict[str, Any] = await admin.ok("POST", "/auth/group/", json={"name": name})
    await admin.ok("POST", f"/auth/group/{group['id']}/add-user/{owner.user.id}/")
    return group


async def test_a_template_is_made_of_a_workflow_changed_exported_and_deleted(
    owner: Any, runnable: dict[str, Any], new_template: Any
) -> None:
    made = await new_template("t", 3)
    one = f"{URL}{made['id']}/"
    workflow = f"/api/v2/project/{runnable['project_id']}/workflow/{runnable['id']}/"
    document = await owner.ok("GET", f"{workflow}export/")

    changed = await owner.ok("PATCH", one, json={"description": None})
    exported = await owner.ok("GET", f"{one}export/")

    assert made["user_email"] == owner.user.email
    assert made["fractal_server_version"] == CONTRACT_VERSION
    assert (made["name"], made["version"], made["user_group_id"]) == ("t", 3, None)
    assert made["data"] == document
    assert changed == {**made, "description": None}
    assert await owner.ok("GET", one) == changed
    assert exported == {"name": "t", "version": 3, "description": None, "data": document}
    assert (await owner.delete(one)).status_code == 204
    assert (await owner.get(one)).status_code == 404


async def test_a_template_is_imported_as_it_was_exported_or_read(
    owner: Any, new_person: Any, new_template: Any
) -> None:
    made = await new_template("to import")
    exported = await owner.ok("GET", f"{URL}{made['id']}/export/")
    other = await new_person()

    imported = await other.ok("POST", f"{URL}import/", json=exported)
    again = await other.ok("POST", f"{URL}import/", json={**made, "version": 2})

    assert await other.ok("GET", f"{URL}{imported['id']}/export/") == exported
    assert imported["user_email"] == again["user_email"] == other.user.email
    assert again["id"] != made["id"]


async def test_versions_are_unique_per_user_and_template(owner: Any, new_template: Any) -> None:
    made = await new_template("unique")
    exported = await owner.ok("GET", f"{URL}{made['id']}/export/")

    again = await owner.post(f"{URL}import/", json=exported)

    assert again.status_code == 422
    assert "'unique' of version 1 already" in again.json()["detail"]
    await new_template("unique", 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": 0}, "greater than 0"),
        ({"version": 2**31}, "cannot be stored"),
        ({"name": ""}, "at least 1"),
        ({"name": "\0"}, "NUL character"),
        ({"data": {"name": "w", "task_list": []}}, "needs tasks"),
        (
            {"data": {"name": "w", "task_list": [{"task": {"pkg_name": "p", "name": "n"}}]}},
            "needs a version",
        ),
    ],
)
async def test_a_wrong_template_is_not_imported(
    changes: dict[str, Any], told: str, owner: Any
) -> None:
    task = {"pkg_name": "p", "version": "1", "name": "n"}
    data = {"name": "w", "task_list": [{"task": task}]}
    document = {"name": "wrong", "version": 1, "data": data, **changes}

    answer = await owner.post(f"{URL}import/", json=document)

    assert answer.status_code == 422
    assert told in answer.text


async def test_a_template_needs_a_workflow_with_tasks_that_its_author_sees(
    owner: Any,
    new_person: Any,
    project: dict[str, Any],
    workflow: dict[str, Any],
    runnable: dict[str, Any],
    invite: Any,
    new_task: Any,
) -> None:
    other, guest = await new_person(), await new_person()
    await invite(guest, project, "r")

    async def status(person: Any, workflow_id: int, **query: Any) -> int:
        answer = await person.post(
            URL,
            params={"workflow_id": workflow_id, **query},
            json={"name": "t of others", "version": 1},
        )
        return int(answer.status_code)

    base = f"/api/v2/project/{project['id']}/workflow/"
    empty = await owner.ok("POST", base, json={"name": "empty"})
    assert await status(owner, empty["id"]) == 422
    assert await status(owner, 10**6) == 404
    assert await status(owner, 2**40) in (404, 422)
    assert await status(other, runnable["id"]) == 404
    assert await status(guest, runnable["id"], user_group_id=10**6) == 403
    assert await status(guest, runnable["id"]) == 201


async def test_a_template_is_seen_by_the_group_and_changed_by_its_author(
    owner: Any, admin: Any, new_person: Any, new_template: Any, group: dict[str, Any]
) -> None:
    made = await new_template("shared")
    one = f"{URL}{made['id']}/"
    member, stranger = await new_person(), await new_person()
    await admin.ok("POST", f"/auth/group/{group['id']}/add-user/{member.user.id}/")

    assert (await member.get(one)).status_code == 404
    await owner.ok("PATCH", one, json={"user_group_id": group["id"]})

    assert (await member.ok("GET", one))["user_group_id"] == group["id"]
    assert (await member.get(f"{one}export/")).status_code == 200
    assert (await stranger.get(one)).status_code == 404
    assert (await member.patch(one, json={"description": "x"})).status_code == 403
    assert (await member.delete(one)).status_code == 403
    assert (await stranger.delete(one)).status_code == 404
    assert (await owner.patch(one, json={"user_group_id": 10**6})).status_code == 403
    await owner.ok("PATCH", one, json={"user_group_id": None})
    assert (await member.get(one)).status_code == 404


async def test_templates_are_listed_by_author_and_name_with_the_newest_version_first(
    owner: Any, admin: Any, new_person: Any, new_template: Any, group: dict[str, Any]
) -> None:
    reader, author = await new_person(email="zz@example.org"), await new_person(email="a@x.org")
    for person in (reader, author):
        await admin.ok("POST", f"/auth/group/{group['id']}/add-user/{person.user.id}/")
    shared = {"user_group_id": group["id"]}
    first, second = await new_template("list b", 1, **shared), await new_template("list b", 2)
    third = await new_template("list b", 3, **shared)
    await new_template("LIST A", 1, **shared)
    document = await owner.ok("GET", f"{URL}{first['id']}/export/")
    await author.ok("POST", f"{URL}import/", json={**document, "name": "z"}, params=shared)
    await reader.ok("POST", f"{URL}import/", json={**document, "name": "own"})

    async def names(**query: Any) -> list[tuple[str, list[int]]]:
        page = await reader.ok("GET", URL, params=query)
        return [
            (each["template_name"], [member["template_version"] for member in each["templates"]])
            for each in page["items"]
        ]

    page = await reader.ok("GET", URL)
    assert [each["user_email"] for each in page["items"]] == [
        "zz@example.org",
        "a@x.org",
        *[owner.user.email] * 2,
    ]
    assert page["email_list"] == sorted(["zz@example.org", "a@x.org", owner.user.email])
    assert (page["current_page"], page["page_size"], page["total_count"]) == (1, 4, 4)
    assert page["items"][3]["templates"] == [
        {"template_id": third["id"], "template_version": 3},
        {"template_id": first["id"], "template_version": 1},
    ]
    assert await names(page=2, page_size=2) == [("LIST A", [1]), ("list b", [3, 1])]
    assert await names(is_owner=True) == [("own", [1])]
    assert await names(user_email="a@x.org") == [("z", [1])]
    assert await names(name="IST B") == [("list b", [3, 1])]
    assert await names(version=3) == [("list b", [3])]
    assert await names(template_id=first["id"]) == [("list b", [1])]
    assert await names(template_id=second["id"]) == []


async def test_a_workflow_is_made_of_a_template(
    owner: Any, runnable: dict[str, Any], new_template: Any, session: Any
) -> None:
    template = await new_template("to use")
    url = f"/api/v2/project/{runnable['project_id']}/workflow/import-from-template/"
    query = {"template_id": template["id"]}
    [task] = runnable["task_list"]
    group = await session.get_one(TaskGroupV2, task["task"]["taskgroupv2_id"])
    group.active = False
    await session.commit()

    made = await owner.ok("POST", url, params=query, json={"name": "from template"})

    assert (made["name"], made["template_id"]) == ("from template", template["id"])
    assert made["task_list"][0]["task_id"] == task["task_id"]
    assert made["task_list"][0]["warning"] == "The task is not active."
    used = await owner.ok("GET", f"{URL}{template['id']}/")
    assert used["timestamp_last_used"] > template["timestamp_last_used"]
    assert used["timestamp_created"] == template["timestamp_created"]
    same_name = await owner.post(url, params=query, json={})
    assert same_name.status_code == 422
    assert (await owner.delete(f"{URL}{template['id']}/")).status_code == 204
    workflow = f"/api/v2/project/{runnable['project_id']}/workflow/{made['id']}/"
    assert (await owner.ok("GET", workflow))["template_id"] is None


async def test_a_template_is_used_with_other_versions(
    owner: Any, new_person: Any, runnable: dict[str, Any], new_template: Any, new_task: Any
) -> None:
    template = await new_template("to override")
    url = f"/api/v2/project/{runnable['project_id']}/workflow/import-from-template/"
    query = {"template_id": template["id"]}
    newer = await new_task(name=runnable["task_list"][0]["task"]["name"], version="2")

    async def use(versions: dict[str, str]) -> Any:
        request = {"name": f"with {versions}", "override_versions": versions}
        return await owner.post(url, params=query, json=request)

    made = await use({"0": "2"})
    not_there = await use({"0": "3"})

    assert made.json()["task_list"][0]["task_id"] == newer["id"]
    assert not_there.json()["data"][0]["available_tasks"][0]["version"] == "2"
    for wrong in ({"1": "1"}, {"-1": "1"}, {"x": "1"}, {"0": ""}):
        answer = await use(wrong)
        assert answer.status_code == 422
        assert "override_versions" in answer.text
    used = await owner.ok("GET", f"{URL}{template['id']}/")
    assert used["data"] == template["data"]
    stranger = await new_person()
    project = await stranger.ok("POST", "/api/v2/project/", json={"name": "p"})
    there = f"/api/v2/project/{project['id']}/workflow/import-from-template/"
    assert (await stranger.post(there, params=query, json={})).status_code == 404
