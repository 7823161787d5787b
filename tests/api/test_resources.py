"""Resources and profiles."""

import sys
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import Profile, Resource

_numbers = count(1)


@pytest.fixture
def local() -> dict[str, Any]:
    """A request for a local resource."""
    return {
        "type": "local",
        "name": f"local {next(_numbers)}",
        "jobs_local_dir": "/data/jobs",
        "jobs_runner_config": {"parallel_tasks_per_job": 2},
        "tasks_local_dir": "/data/tasks",
        "tasks_python_config": {"default_version": "3.11", "versions": {"3.11": sys.executable}},
        "tasks_pixi_config": {},
    }


async def test_a_resource_is_made_without_prefect_changed_and_deleted(
    admin: Any, local: dict[str, Any]
) -> None:
    made = await admin.ok("POST", "/admin/v2/resource/", json=local)
    url = f"/admin/v2/resource/{made['id']}/"
    changed = await admin.ok("PUT", url, json={**local, "prevent_new_submissions": True})

    assert local.items() <= {**made, "tasks_python_config": local["tasks_python_config"]}.items()
    assert changed["prevent_new_submissions"]
    assert changed in await admin.ok("GET", "/admin/v2/resource/")
    assert await admin.ok("GET", url) == changed
    assert (await admin.delete(url)).status_code == 204
    assert (await admin.get(url)).status_code == 404


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"type": "cloud"}, "cloud"),
        ({"host": "cluster"}, "None"),
        ({"jobs_local_dir": "jobs"}, "absolute"),
        ({"jobs_runner_config": {"parallel_tasks_per_job": 0}}, "greater than 0"),
        (
            {"tasks_python_config": {"default_version": "3.12", "versions": {"3.11": "/python"}}},
            "3.12",
        ),
        ({"name": ""}, "at least 1"),
        ({"jobs_runner_config": {"colour": "blue"}}, "Extra inputs"),
        ({"jobs_runner_config": {"warm_units": "never"}}, "'auto' or 'off'"),
        (
            {"tasks_python_config": {"default_version": "3.8", "versions": {"3.8": "/python"}}},
            "3.9",
        ),
    ],
)
async def test_a_wrong_resource_is_refused(
    changes: dict[str, Any], told: str, admin: Any, local: dict[str, Any]
) -> None:
    answer = await admin.post("/admin/v2/resource/", json={**local, **changes})

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


async def test_a_slurm_resource_keeps_its_configuration_as_it_was_given(
    admin: Any, local: dict[str, Any]
) -> None:
    batching = {
        "target_cpus_per_job": 1,
        "max_cpus_per_job": 2,
        "target_mem_per_job": "1G",
        "max_mem_per_job": 2000,
        "target_num_jobs": 1,
        "max_num_jobs": 2,
    }
    slurm = {
        **local,
        "type": "slurm_sudo",
        "jobs_slurm_python_worker": "/usr/bin/python3",
        "jobs_runner_config": {"default_slurm_config": {"mem": "1G"}, "batching_config": batching},
    }
    made = await admin.ok("POST", "/admin/v2/resource/", json=slurm)
    assert made["jobs_runner_config"]["batching_config"] == batching
    assert made["jobs_runner_config"]["default_slurm_config"]["mem"] == "1G"
    slurm["jobs_runner_config"]["default_slurm_config"]["mem"] = "much"
    url = f"/admin/v2/resource/{made['id']}/"
    answer = await admin.request("PUT", url, json=slurm)
    assert answer.status_code == 422
    assert "'much' is no memory" in answer.text


async def test_a_resource_name_is_taken_once(admin: Any, local: dict[str, Any]) -> None:
    await admin.ok("POST", "/admin/v2/resource/", json=local)

    answer = await admin.post("/admin/v2/resource/", json=local)

    assert answer.status_code == 422
    assert local["name"] in answer.json()["detail"]


async def test_a_renamed_resource_keeps_its_work_pool(
    admin: Any, local: dict[str, Any], session: AsyncSession
) -> None:
    made = await admin.ok("POST", "/admin/v2/resource/", json=local)
    url = f"/admin/v2/resource/{made['id']}/"

    changed = await admin.ok("PUT", url, json={**local, "name": "another"})
    heir = await admin.ok("POST", "/admin/v2/resource/", json=local)

    assert changed == {**made, "name": "another"}
    renamed, new = [await session.get_one(Resource, each["id"]) for each in (made, heir)]
    assert renamed.work_pool == local["name"]
    assert new.work_pool == f"{local['name']}-2"


async def test_a_resource_is_not_renamed_to_a_name_that_is_taken(
    admin: Any, local: dict[str, Any], resource: Resource
) -> None:
    made = await admin.ok("POST", "/admin/v2/resource/", json=local)
    url = f"/admin/v2/resource/{made['id']}/"

    answer = await admin.put(url, json={**local, "name": resource.name})

    assert answer.status_code == 422
    assert resource.name in answer.json()["detail"]
    assert await admin.ok("GET", url) == made


async def test_a_resource_in_use_is_not_deleted(
    admin: Any,
    resource: Resource,
    project: dict[str, Any],
    new_task: Callable[..., Awaitable[Any]],
) -> None:
    await new_task()

    answer = await admin.delete(f"/admin/v2/resource/{resource.id}/")

    assert answer.status_code == 422
    assert "1 projects, 1 profiles and 1 task groups" in answer.json()["detail"]


async def test_a_profile_is_made_changed_and_deleted(admin: Any, resource: Resource) -> None:
    request = {"resource_type": "local", "name": "a profile"}
    url = f"/admin/v2/resource/{resource.id}/profile/"

    made = await admin.ok("POST", url, json=request)
    one = f"/admin/v2/profile/{made['id']}/"
    changed = await admin.ok("PUT", one, json={**request, "name": "renamed"})

    assert (made["name"], made["resource_id"]) == ("a profile", resource.id)
    assert changed in await admin.ok("GET", url)
    assert changed in await admin.ok("GET", "/admin/v2/profile/")
    assert (await admin.delete(one)).status_code == 204
    assert (await admin.get(one)).status_code == 404


async def test_a_profile_must_fit_its_resource(admin: Any, resource: Resource) -> None:
    request = {"resource_type": "slurm_sudo", "name": "a user", "username": "somebody"}

    answer = await admin.post(f"/admin/v2/resource/{resource.id}/profile/", json=request)

    assert answer.status_code == 422
    assert "slurm_sudo" in answer.json()["detail"]


async def test_a_profile_of_users_is_not_deleted(admin: Any, profile: Profile) -> None:
    answer = await admin.delete(f"/admin/v2/profile/{profile.id}/")

    assert answer.status_code == 422
    assert "users" in answer.json()["detail"]
