"""Tasks, task groups and their collection."""

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fractal_models.database import saved_id
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2, TaskV2

MANIFEST = {
    "manifest_version": "2",
    "task_list": [
        {
            "name": "Threshold",
            "executable_parallel": "threshold.py",
            "input_types": {"is_3D": False},
            "args_schema_parallel": {"type": "object"},
            "tags": ["segmentation"],
        },
        {"name": "Convert", "executable_non_parallel": "init.py", "executable_parallel": "run.py"},
    ],
    "has_args_schemas": False,
    "args_schema_version": "pydantic_v2",
    "authors": "Somebody",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the executables of MANIFEST."""
    for name in ("threshold.py", "init.py", "run.py"):
        (tmp_path / name).touch()
    return tmp_path


async def test_a_task_is_made_and_changed(
    owner: Any, new_task: Callable[..., Awaitable[Any]]
) -> None:
    made = await new_task(
        command_non_parallel="init", command_parallel="run", tags=["x"], input_types={"a": True}
    )
    url = f"/api/v2/task/{made['id']}/"

    changed = await owner.ok(
        "PATCH", url, json={"command_parallel": "walk", "output_types": {"b": True}, "tags": None}
    )

    assert made["type"] == "compound"
    assert changed == {
        **made,
        "command_parallel": "walk",
        "output_types": {"b": True},
        "tags": [],
    }
    slim = {key: changed[key] for key in ("id", "name", "version", "input_types", "tags")}
    listed = await owner.ok("GET", "/api/v2/task/")
    assert any(slim.items() <= task.items() for task in listed)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "t", "version": "1"}, "command_parallel, command_non_parallel or both"),
        ({"name": "t", "command_parallel": "x"}, "version"),
        ({"name": "t", "version": "1", "command_parallel": "x", "type": "compound"}, "compound"),
        ({"name": "t", "version": "1", "command_parallel": "x", "tags": ["a", "a"]}, "twice"),
        (
            {"name": "t", "version": "1", "command_parallel": "x", "meta_non_parallel": {}},
            "has no meta_non_parallel",
        ),
        (
            {
                **{"name": "t", "version": "1", "command_non_parallel": "x"},
                "args_schema_parallel": {"type": "object"},
            },
            "has no args_schema_parallel",
        ),
    ],
)
async def test_a_wrong_task_is_refused(fields: dict[str, Any], told: str, owner: Any) -> None:
    answer = await owner.post("/api/v2/task/", json=fields)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


@pytest.mark.parametrize(
    "changes", [{"command_parallel": None}, {"command_non_parallel": "x"}, {"name": "other"}]
)
async def test_the_type_and_the_name_of_a_task_stay(
    changes: dict[str, Any], owner: Any, new_task: Callable[..., Awaitable[Any]]
) -> None:
    task = await new_task(command_parallel="x")

    assert (await owner.patch(f"/api/v2/task/{task['id']}/", json=changes)).status_code == 422


async def test_arguments_keep_the_order_in_which_clients_show_them(owner: Any) -> None:
    names = ["zoom", "a", "level"]
    schema = {"properties": {name: {"type": "integer"} for name in names}}
    body = {"name": "a form", "version": "1", "command_parallel": "x"}
    made = await owner.ok("POST", "/api/v2/task/", json={**body, "args_schema_parallel": schema})

    task = await owner.ok("GET", f"/api/v2/task/{made['id']}/")

    assert list(task["args_schema_parallel"]["properties"]) == names


async def test_what_a_package_says_of_its_tasks_stays(
    owner: Any, new_group: Callable[..., Awaitable[TaskGroupV2]], session: Any
) -> None:
    group = await new_group()
    task = TaskV2(name="t", type="parallel", command_parallel="x", version="1", meta_parallel={})
    task.taskgroupv2_id = saved_id(group)
    session.add(task)
    await session.commit()
    url = f"/api/v2/task/{task.id}/"

    for changes in ({"command_parallel": "y"}, {"input_types": {}}, {"output_types": {"a": True}}):
        answer = await owner.patch(url, json=changes)
        assert answer.status_code == 422
        assert "is part of" in answer.json()["detail"]
    assert (await owner.ok("PATCH", url, json={"category": "c"}))["category"] == "c"


async def test_a_task_is_not_deleted_alone(
    owner: Any, new_task: Callable[..., Awaitable[Any]]
) -> None:
    url = f"/api/v2/task/{(await new_task())['id']}/"

    answer = await owner.delete(url)

    assert answer.status_code == 405
    assert "task group" in answer.json()["detail"]
    assert (await owner.get(url)).status_code == 200


async def test_tasks_are_shared_with_groups_and_changed_by_their_owner(
    owner: Any,
    admin: Any,
    new_person: Callable[..., Awaitable[Any]],
    new_task: Callable[..., Awaitable[Any]],
) -> None:
    lab = await admin.ok("POST", "/auth/group/", json={"name": "lab"})
    colleague, other = await new_person(), await new_person()
    for person in (owner, colleague):
        await admin.ok("POST", f"/auth/group/{lab['id']}/add-user/{person.user.id}/")
    everybodys = await new_task()
    labs = await new_task(query={"user_group_id": lab["id"]})
    private = await new_task(query={"private": True})

    async def sees(person: Any) -> list[bool]:
        ids = {task["id"] for task in await person.ok("GET", "/api/v2/task/")}
        assert {each["id"] in ids for each in (everybodys, labs, private)} == {
            (await person.get(f"/api/v2/task/{each['id']}/")).status_code == 200
            for each in (everybodys, labs, private)
        }
        return [each["id"] in ids for each in (everybodys, labs, private)]

    assert await sees(owner) == [True, True, True]
    assert await sees(colleague) == [True, True, False]
    assert await sees(other) == [True, False, False]
    url = f"/api/v2/task/{labs['id']}/"
    assert (await colleague.patch(url, json={"category": "c"})).status_code == 403


async def test_tasks_are_shared_only_with_own_groups(owner: Any, admin: Any) -> None:
    group = await admin.ok("POST", "/auth/group/", json={"name": "closed"})
    task = {"name": "t", "version": "1", "command_parallel": "x"}
    url = "/api/v2/task/"

    foreign = await owner.post(url, json=task, params={"user_group_id": group["id"]})
    both = await owner.post(url, json=task, params={"user_group_id": 1, "private": True})

    assert foreign.status_code == 403
    assert both.status_code == 422


async def test_a_task_of_a_version_is_made_once_per_user_and_group(
    owner: Any, new_person: Callable[..., Awaitable[Any]]
) -> None:
    other = await new_person()
    task = {"name": "unique", "version": "1", "command_parallel": "x"}
    url = "/api/v2/task/"
    await owner.ok("POST", url, json=task)

    again = await owner.post(url, json=task, params={"private": True})
    shared = await other.post(url, json=task)

    assert (again.status_code, shared.status_code) == (422, 422)
    assert "You have unique 1 already" in again.json()["detail"]
    await other.ok("POST", url, json=task, params={"private": True})
    await owner.ok("POST", url, json={**task, "version": "2"})


async def test_task_groups_are_listed_by_package_the_newest_version_first(
    owner: Any, new_task: Callable[..., Awaitable[Any]], runnable: dict[str, Any]
) -> None:
    for version in ("1.9", "1.10", "odd"):
        await new_task(name="A package", version=version)
    used = runnable["task_list"][0]["task"]["taskgroupv2_id"]

    listed = await owner.ok("GET", "/api/v2/task-group/")
    packages = dict(listed)
    [newest, *_] = packages["A package"]
    groups = {group["id"]: group for groups in packages.values() for group in groups}
    shown = await owner.ok("GET", f"/api/v2/task-group/{newest['id']}/")

    assert [group["version"] for group in packages["A package"]] == ["1.10", "1.9", "odd"]
    assert [name.lower() for name, _ in listed] == sorted(name.lower() for name, _ in listed)
    assert {id_ for id_, group in groups.items() if group["in_use"]} >= {used}
    assert not newest["in_use"]
    assert (newest["user_email"], newest["origin"]) == (owner.user.email, "other")
    assert shown["task_list"][0]["command_parallel"] == "true"


async def test_of_task_groups_with_the_same_version_the_list_has_the_preferred_one(
    admin: Any, new_person: Callable[..., Awaitable[Any]]
) -> None:
    """That is one's own, and else that of the group that one is in for longest."""
    lab = await admin.ok("POST", "/auth/group/", json={"name": "newer than everybody"})
    one, two, me = await new_person(), await new_person(), await new_person()
    for person in (two, me):
        await admin.ok("POST", f"/auth/group/{lab['id']}/add-user/{person.user.id}/")
    body = {"name": "of several", "version": "1", "command_parallel": "x"}

    async def make(person: Any, **query: Any) -> int:
        made = await person.ok("POST", "/api/v2/task/", json=body, params=query)
        group_id: int = made["taskgroupv2_id"]
        return group_id

    async def listed(**query: Any) -> list[int]:
        packages = dict(await me.ok("GET", "/api/v2/task-group/", params=query))
        return [group["id"] for group in packages.get("of several", [])]

    of_lab = await make(two, user_group_id=lab["id"])
    assert await listed() == [of_lab]
    of_everybody = await make(one)
    assert await listed() == [of_everybody]
    own = await make(me, private=True)
    assert await listed() == [own]
    await me.ok("POST", f"/api/v2/task-group/{own}/deactivate/")
    assert await listed(only_active=True) == [of_everybody]
    newer = await me.ok("POST", "/api/v2/task/", json={**body, "version": "2"})
    assert await listed() == [newer["taskgroupv2_id"], own]


@pytest.mark.pypi
async def test_two_resources_with_one_folder_do_not_share_an_environment(
    owner: Any, new_group: Callable[..., Awaitable[TaskGroupV2]], session: Any, resource: Resource
) -> None:
    other = Resource(**{**resource.model_dump(exclude={"id", "work_pool"}), "name": "same folder"})
    session.add(other)
    await session.commit()
    path = f"{resource.tasks_local_dir}/{owner.user.id}/iniconfig/1.1.1"
    await new_group(resource_id=other.id, pkg_name="iniconfig", version="1.1.1", path=path)
    form = {"package": "iniconfig", "package_version": "1.1.1"}

    answer = await owner.post("/api/v2/task/collect/pip/", data=form)

    assert answer.status_code == 422
    assert path in answer.json()["detail"]


async def test_a_task_group_is_made_private_and_shared_again(
    owner: Any,
    new_task: Callable[..., Awaitable[Any]],
    new_person: Callable[..., Awaitable[Any]],
) -> None:
    other = await new_person()
    task = await new_task()
    url = f"/api/v2/task-group/{task['taskgroupv2_id']}/"
    group = (await owner.ok("GET", url))["user_group_id"]

    assert (await other.patch(url, json={"user_group_id": None})).status_code == 403
    private = await owner.ok("PATCH", url, json={"user_group_id": None})
    assert private["user_group_id"] is None
    assert (await other.get(url)).status_code == 404
    assert (await owner.patch(url, json={"user_group_id": 999})).status_code == 403
    await owner.ok("PATCH", url, json={"user_group_id": group})
    assert (await other.get(url)).status_code == 200


async def test_tasks_of_an_installed_package_are_collected_by_its_folder(
    owner: Any, package: Path
) -> None:
    request = {
        "manifest": MANIFEST,
        "python_interpreter": sys.executable,
        "label": "my tasks",
        "package_root": str(package),
        "version": "0.1",
    }

    threshold, convert = await owner.ok("POST", "/api/v2/task/collect/custom/", json=request)

    assert threshold["command_parallel"] == f"{sys.executable} {package}/threshold.py"
    assert (threshold["type"], convert["type"]) == ("parallel", "compound")
    assert threshold["input_types"] == {"is_3D": False}
    assert (threshold["authors"], threshold["version"]) == ("Somebody", "0.1")
    assert (await owner.post("/api/v2/task/collect/custom/", json=request)).status_code == 422


async def test_the_folder_of_an_installed_package_is_found_by_its_name(owner: Any) -> None:
    executable = {"name": "a task", "executable_parallel": "decoder.py"}
    request = {
        "manifest": {**MANIFEST, "task_list": [executable]},
        "python_interpreter": sys.executable,
        "label": "by name",
        "package_name": "json",
        "version": "0.1",
    }

    [task] = await owner.ok("POST", "/api/v2/task/collect/custom/", json=request)

    assert task["command_parallel"] == f"{sys.executable} {json.decoder.__file__}"


async def test_the_files_of_an_installed_package_may_come_later(owner: Any, tmp_path: Path) -> None:
    request = {
        "manifest": MANIFEST,
        "python_interpreter": sys.executable,
        "label": "not yet there",
        "package_root": f"{tmp_path}/",
        "version": "0.1",
    }

    tasks = await owner.ok("POST", "/api/v2/task/collect/custom/", json=request)

    assert tasks[0]["command_parallel"] == f"{sys.executable} {tmp_path}/threshold.py"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"package_name": "no_such_package"}, "no_such_package"),
        ({"package_name": "json", "python_interpreter": "/no/python"}, "/no/python"),
        ({"package_root": "/no/folder"}, "does not exist"),
        ({"package_root": "/no/folder", "package_name": "json"}, "either"),
        ({}, "either"),
        ({"package_name": "json", "manifest": {"manifest_version": "2"}}, "task_list"),
    ],
)
async def test_a_wrong_custom_collection_is_refused(
    changes: dict[str, Any], told: str, owner: Any
) -> None:
    request = {
        "manifest": MANIFEST,
        "python_interpreter": sys.executable,
        "label": "wrong",
        "version": "0.1",
    }

    answer = await owner.post("/api/v2/task/collect/custom/", json={**request, **changes})

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({}, "either package or file"),
        ({"package": "x; rm -rf /"}, "pattern"),
        ({"package": "x", "package_version": "1 --index"}, "pattern"),
        ({"package": "x", "package_extras": "a b"}, "pattern"),
        ({"package": "x", "package_version": "1", "python_version": "3.9"}, "no Python 3.9"),
        ({"package": "x", "python_version": "2.7"}, "3.11"),
        ({"package": "x", "pinned_package_versions_pre": "a=1"}, "JSON"),
        ({"package": "x", "pinned_package_versions_post": '{"a b": "1"}'}, "pattern"),
        ({"package": "x", "package_version": "newest"}, "not a version"),
    ],
)
async def test_a_wrong_collection_is_refused(form: dict[str, str], told: str, owner: Any) -> None:
    answer = await owner.post("/api/v2/task/collect/pip/", data=form)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


@pytest.mark.pypi
async def test_a_package_that_is_not_on_the_index_is_named(owner: Any) -> None:
    form = {"package": "no-such-package-of-fractal-tasks"}

    answer = await owner.post("/api/v2/task/collect/pip/", data=form)

    assert answer.status_code == 422
    assert "no-such-package-of-fractal-tasks" in answer.json()["detail"]


async def test_a_file_that_is_no_wheel_is_refused(owner: Any) -> None:
    file = {"file": ("package.tar.gz", b"...", "application/zip")}

    answer = await owner.post("/api/v2/task/collect/pip/", files=file)

    assert answer.status_code == 422
    assert "package.tar.gz" in answer.json()["detail"]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(
            {"data": {"package": "iniconfig", "package_version": "2.0.0"}}, marks=pytest.mark.pypi
        ),
        {"files": {"file": ("some_tasks-1.0-py3-none-any.whl", b"zip", "application/zip")}},
    ],
)
async def test_a_collection_without_prefect_leaves_nothing_behind(
    request_: dict[str, Any], owner: Any, resource: Resource, session: Any
) -> None:
    answer = await owner.post("/api/v2/task/collect/pip/", **request_)

    assert answer.status_code == 503
    assert "Prefect" in answer.json()["detail"]
    collected = dict(await owner.ok("GET", "/api/v2/task-group/"))
    assert not {"some-tasks", "iniconfig"} & collected.keys()
    for package, version in (("some-tasks", "1.0"), ("iniconfig", "2.0.0")):
        assert await owner.ok("GET", f"/api/v2/task-group/activity/?pkg_name={package}") == []
        folder = Path(resource.tasks_local_dir, str(owner.user.id), package, version)
        assert not folder.exists()


async def test_activities_are_found_by_what_they_did(
    owner: Any, new_person: Callable[..., Awaitable[Any]], session: Any
) -> None:
    other = await new_person()
    for user, name, status in (
        (owner, "one", "OK"),
        (owner, "two", "failed"),
        (other, "one", "OK"),
    ):
        session.add(
            TaskGroupActivityV2(
                user_id=user.user.id, pkg_name=name, version="1", status=status, action="collect"
            )
        )
    await session.commit()
    url = "/api/v2/task-group/activity/"

    async def names(query: str) -> list[str]:
        return [each["pkg_name"] for each in await owner.ok("GET", f"{url}?{query}")]

    assert await names("") == ["two", "one"]
    assert await names("status=failed") == ["two"]
    assert await names("pkg_name=ON") == ["one"]
    assert await names("action=delete") == []
    assert await names("timestamp_started_min=2020-01-01T00:00:00Z") == ["two", "one"]
    assert await names("timestamp_started_min=2120-01-01T00:00:00Z") == []
    [foreign] = await other.ok("GET", url)
    assert (await owner.get(f"{url}{foreign['id']}/")).status_code == 404
    assert await other.ok("GET", f"{url}{foreign['id']}/") == foreign
