"""What the pages of Fractal's web client ask for, in the order in which they do it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fractal_models.tables import Profile, Resource
from tests.lab import Lab, eventually
from tests.people import Person

# It deletes these from what it has read, before it sends that back.
_SET_BY_THE_SERVER = ("id", "timestamp_created")


def editable(read: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in read.items() if key not in _SET_BY_THE_SERVER}


# --- the pages of administrators ----------------------------------------------------------------


@pytest.mark.parametrize("send_back", [dict, editable], ids=["all", "editable"])
async def test_a_resource_is_saved_as_it_was_read(
    admin: Person, resource: Resource, send_back: Callable[[Any], Any]
) -> None:
    url = f"/admin/v2/resource/{resource.id}/"
    await admin.ok("PUT", url, json=send_back(await admin.ok("GET", url)))  # defaults are filled in
    read = await admin.ok("GET", url)

    await admin.ok("PUT", url, json=send_back(read))

    assert await admin.ok("GET", url) == read
    assert read["name"] == resource.name


@pytest.mark.parametrize("send_back", [dict, editable], ids=["all", "editable"])
async def test_a_profile_is_saved_as_it_was_read(
    admin: Person, profile: Profile, send_back: Callable[[Any], Any]
) -> None:
    url = f"/admin/v2/profile/{profile.id}/"
    read = await admin.ok("GET", url)

    await admin.ok("PUT", url, json=send_back(read))

    assert await admin.ok("GET", url) == read


async def test_a_user_is_edited_with_groups(admin: Person, owner: Person) -> None:
    url = f"/auth/users/{owner.user.id}/"
    read = await admin.ok("GET", url, params={"group_ids_names": True})
    groups = await admin.ok("GET", "/auth/group/", params={"user_ids": True})
    changes = {
        "is_verified": True,
        "profile_id": read["profile_id"],
        "project_dirs": [*read["project_dirs"], "/data/more"],
        "slurm_accounts": ["lab"],
    }

    edited = await admin.ok("PATCH", url, json=changes)
    ids = [group["id"] for group in groups if owner.user.id in group["user_ids"]]
    await admin.ok("POST", f"{url}set-groups/", json={"group_ids": ids})
    await admin.ok("PATCH", url, json={"project_dirs": read["project_dirs"]})

    assert {key: edited[key] for key in changes} == changes


async def test_the_admin_pages_list_what_there_is(
    admin: Person, owner: Person, project: dict[str, Any]
) -> None:
    pages = {"page": 1, "page_size": 10}
    for url in (
        "/admin/v2/job/",
        "/admin/v2/project/",
        "/admin/v2/task/",
        "/admin/v2/task-group/",
        "/admin/v2/task-group/activity/",
        "/admin/v2/linkuserproject/",
    ):
        listed = await admin.ok("GET", url, params=pages)
        assert {"items", "total_count", "current_page", "page_size"} <= set(listed), url
    listed = await admin.ok("POST", "/admin/v2/accounting/", params=pages, json={})
    assert listed["items"] == []
    assert await admin.ok("POST", "/admin/v2/accounting/slurm/", json={}) == []
    for page in ("app", "database", "email", "oauth"):
        assert isinstance(await admin.ok("GET", f"/api/settings/{page}/"), dict)


async def test_someone_is_impersonated(
    admin: Person, owner: Person, anonymous: httpx.AsyncClient
) -> None:
    given = await admin.ok("GET", f"/admin/v2/impersonate/{owner.user.id}/")

    who = await anonymous.get(
        "/auth/current-user/", headers={"Authorization": f"Bearer {given['access_token']}"}
    )

    assert who.json()["email"] == owner.user.email


# --- the pages of users -------------------------------------------------------------------------


async def test_every_page_begins_with_who_asks(owner: Person) -> None:
    me = await owner.ok("GET", "/auth/current-user/", params={"group_ids_names": True})
    info = await owner.ok("GET", "/auth/current-user/profile-info/")
    saved = await owner.ok("PATCH", "/auth/current-user/", json={"slurm_accounts": ["lab"]})

    assert [name for _, name in me["group_ids_names"]] == ["All"]
    assert info["has_profile"] is True
    assert saved["slurm_accounts"] == ["lab"]


async def test_guests_see_the_jobs_and_paths_of_projects_that_they_joined(
    new_person: Callable[..., Awaitable[Person]],
    owner: Person,
    invite: Callable[..., Awaitable[None]],
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[httpx.Response]],
    project: dict[str, Any],
) -> None:
    guest = await new_person()
    await owner.ok(
        "POST",
        f"/api/v2/project/{project['id']}/dataset/{dataset['id']}/images/",
        json={"zarr_url": f"{dataset['zarr_dir']}/image"},
    )
    answer = await submit(runnable, dataset)
    assert answer.is_success, answer.text
    url = f"/api/v2/project/{project['id']}/"
    assert (await guest.get(url)).status_code in (403, 404)

    await owner.ok(
        "POST",
        f"{url}guest/",
        params={"email": guest.user.email},
        json={"permissions": "r"},
    )
    [invitation] = await guest.ok("GET", "/api/v2/project/invitation/")
    await guest.ok("POST", f"{url}access/accept/")

    assert invitation["project_id"] == project["id"]
    assert (await guest.ok("GET", url))["id"] == project["id"]
    jobs = await guest.ok("GET", "/api/v2/job/", params={"log": False})
    assert [job["id"] for job in jobs] == [answer.json()["id"]]
    paths = await guest.ok("GET", "/auth/current-user/allowed-viewer-paths/")
    assert any(dataset["zarr_dir"].startswith(path) for path in paths)


async def test_the_images_page_filters_edits_and_deletes(
    owner: Person, dataset: dict[str, Any]
) -> None:
    url = f"/api/v2/project/{dataset['project_id']}/dataset/{dataset['id']}/images/"
    for well in ("A1", "B2"):
        image = {"zarr_url": f"{dataset['zarr_dir']}/{well}", "attributes": {"well": well}}
        await owner.ok("POST", url, json={**image, "types": {"raw": True}})

    page = await owner.ok("POST", f"{url}query/", params={"page": 1, "page_size": 10}, json={})
    filters = {"attribute_filters": {"well": ["A1"]}, "type_filters": {"raw": True}}
    filtered = await owner.ok("POST", f"{url}query/", json=filters)
    [image] = filtered["items"]
    await owner.ok("PATCH", url, json={**image, "attributes": {"well": "C3"}})
    await owner.ok("DELETE", url, params={"zarr_url": f"{dataset['zarr_dir']}/B2"})
    [left] = (await owner.ok("POST", f"{url}query/", json={}))["items"]

    assert page["total_count"] == 2
    assert page["attributes"] == {"well": ["A1", "B2"]}
    assert page["types"] == ["raw"]
    assert left == {**image, "attributes": {"well": "C3"}}


async def test_the_workflow_page_loads_and_saves_its_tasks(
    owner: Person, runnable: dict[str, Any], dataset: dict[str, Any]
) -> None:
    base = f"/api/v2/project/{runnable['project_id']}"
    url = f"{base}/workflow/{runnable['id']}/"
    [entry] = runnable["task_list"]
    query = {"dataset_id": dataset["id"], "workflow_id": runnable["id"]}

    assert (await owner.get(f"{base}/latest-job/", params=query)).status_code == 404
    assert await owner.ok("GET", f"{url}version-update-candidates/") == [[]]
    flow = await owner.ok("GET", f"{url}type-filters-flow/")
    saved = await owner.ok(
        "PATCH",
        f"{url}wftask/{entry['id']}/",
        json={
            "alias": "mine",
            "description": None,
            "args_parallel": {"a": 1},
            "meta_parallel": {"cpus_per_task": 1},
            "type_filters": {},
        },
    )
    listed = await owner.ok("GET", "/api/v2/task-group/", params={"only_active": True})

    assert len(flow) == 1
    assert (saved["alias"], saved["args_parallel"]) == ("mine", {"a": 1})
    assert any(
        group["id"] == entry["task"]["taskgroupv2_id"] for _, each in listed for group in each
    )


async def test_what_is_exported_is_imported_again(
    owner: Person, runnable: dict[str, Any], dataset: dict[str, Any], project: dict[str, Any]
) -> None:
    base = f"/api/v2/project/{project['id']}"
    url = f"{base}/dataset/{dataset['id']}"
    image = {"zarr_url": f"{dataset['zarr_dir']}/image", "attributes": {"well": "A1"}}
    await owner.ok("POST", f"{url}/images/", json=image)
    workflow = await owner.ok("GET", f"{base}/workflow/{runnable['id']}/export/")
    images = await owner.ok("GET", f"{url}/export/")

    imported = await owner.ok(
        "POST", f"{base}/workflow/import/", json={**workflow, "name": "imported"}
    )
    old = {"filters": {}, "attribute_filters": {}, "type_filters": {}}  # of older versions
    copy = await owner.ok("POST", f"{base}/dataset/import/", json={**images, **old, "name": "copy"})

    assert len(imported["task_list"]) == 1
    again = await owner.ok("GET", f"{base}/dataset/{copy['id']}/export/")
    assert again == {**images, "name": "copy"}


async def test_the_activities_of_the_last_day_are_asked_for_by_a_time_of_javascript(
    owner: Person,
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    query = {
        "timestamp_started_min": yesterday.isoformat(timespec="milliseconds")[:-6] + "Z",
        "action": "collect",
    }
    assert await owner.ok("GET", "/api/v2/task-group/activity/", params=query) == []


# --- a job that runs ----------------------------------------------------------------------------


async def test_a_page_polls_a_job_to_its_end_and_again(lab: Lab) -> None:
    """It shows each task by its status: none is to say `done` of what is about to run again."""
    dataset = await lab.dataset("a", "b")
    workflow = await lab.workflow("Process", "Process")
    query = {"dataset_id": dataset["id"], "workflow_id": workflow["id"]}

    async def poll() -> dict[str, Any]:
        return await lab.ok("GET", f"{lab.base}/latest-job/", params=query)

    for _ in range(2):
        job = await lab.submit(workflow, dataset)
        first = await poll()
        assert first["id"] == job["id"]
        assert {each["status"] for each in first["task_statuses"].values()} == {"submitted"}
        last = await eventually(poll, lambda latest: latest["status"] != "submitted")
        assert last["status"] == "done"
        assert {each["status"] for each in last["task_statuses"].values()} == {"done"}


async def test_the_log_of_a_failed_job_begins_with_its_error(lab: Lab) -> None:
    dataset = await lab.dataset("a")
    workflow = await lab.workflow(("Process", {"args_parallel": {"fail_on": ["a"]}}))

    job = await lab.run(workflow, dataset)

    assert job["status"] == "failed"
    assert job["log"].split(":")[0].split("\n")[0].strip().startswith(("TASK ERROR", "JOB ERROR"))
