"""What is read can be written: by PUT or PATCH of the same, or by an import."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fractal_models.tables import Profile, Resource

PYTHON = {"default_version": "3.11", "versions": {"3.11": "/usr/bin/python3"}}
BATCHING = {
    "target_cpus_per_job": 1,
    "max_cpus_per_job": 2,
    "target_mem_per_job": "1G",
    "max_mem_per_job": 2000,
    "target_num_jobs": 1,
    "max_num_jobs": 2,
}
SLURM = {
    "jobs_slurm_python_worker": "/usr/bin/python3",
    "jobs_runner_config": {
        "default_slurm_config": {"mem": "1G", "extra_lines": ["export A=1"]},
        "batching_config": BATCHING,
        "user_local_exports": {"CACHE": "cache"},
    },
}
PIXI = {
    "versions": {"0.50.0": "/pixi/0.50.0"},
    "default_version": "0.50.0",
    "SLURM_CONFIG": {"partition": "main", "cpus": 2, "mem": "4G", "time": "60"},
}
RESOURCES = {
    "local": {"jobs_runner_config": {}},
    "slurm_sudo": SLURM,
    "slurm_ssh": {**SLURM, "host": "cluster", "tasks_pixi_config": PIXI},
}
# A job can only be ended, and a schedule is not of the contract.
OTHERS = {"/admin/v2/job/{job_id}/", "/api/v2/project/{project_id}/schedule/{schedule_id}/"}
# They have tests of their own below.
OTHERS |= {"/admin/v2/resource/{resource_id}/", "/api/v2/project/{project_id}/guest/"}


@pytest.fixture
async def recipe(owner: Any, runnable: dict[str, Any]) -> dict[str, Any]:
    """A workflow template."""
    return await owner.ok(
        "POST",
        f"/api/v2/workflow-template/?workflow_id={runnable['id']}",
        json={"name": f"of {runnable['project_id']}", "version": 1, "description": "mine"},
    )


@pytest.fixture
async def ids(
    owner: Any,
    dataset: dict[str, Any],
    runnable: dict[str, Any],
    recipe: dict[str, Any],
    resource: Resource,
    profile: Profile,
) -> dict[str, Any]:
    """One of everything, by the names of parameters."""
    [workflow_task] = runnable["task_list"]
    return {
        "user_id": owner.user.id,
        "resource_id": resource.id,
        "profile_id": profile.id,
        "project_id": runnable["project_id"],
        "dataset_id": dataset["id"],
        "workflow_id": runnable["id"],
        "workflow_task_id": workflow_task["id"],
        "template_id": recipe["id"],
        "task_id": workflow_task["task_id"],
        "task_group_id": workflow_task["task"]["taskgroupv2_id"],
    }


def pairs(document: dict[str, Any]) -> dict[str, str]:
    """The paths that are read, and by which method they are written."""
    return {
        path: method
        for path, item in document["paths"].items()
        for method in ("put", "patch")
        if method in item and "get" in item
    }


def known_fields(document: dict[str, Any], path: str, method: str) -> set[str] | None:
    """The fields that a body may have; None: whichever."""
    body = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    if "$ref" not in body:
        return None
    schema = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    return set(schema["properties"]) if schema.get("additionalProperties") is False else None


async def test_what_is_read_can_be_written(
    ours: dict[str, Any], owner: Any, admin: Any, ids: dict[str, Any]
) -> None:
    paths = pairs(ours)
    assert len(paths) > 12

    for path, method in paths.items():
        if path in OTHERS:
            continue
        person = admin if path.startswith(("/admin", "/auth/users")) else owner
        url = path.format(**ids)
        read = await person.ok("GET", url)
        known = known_fields(ours, path, method)
        sent = {key: value for key, value in read.items() if known is None or key in known}
        await person.ok(method.upper(), url, json=sent)
        assert await person.ok("GET", url) == read, path


@pytest.mark.parametrize("kind", RESOURCES)
async def test_a_resource_and_its_profile_are_written_as_they_are_read(
    kind: str, admin: Any
) -> None:
    resource = {
        "type": kind,
        "name": f"round {kind}",
        "jobs_local_dir": "/data/jobs",
        "tasks_local_dir": "/data/tasks",
        "tasks_python_config": PYTHON,
        "tasks_pixi_config": {},
        **RESOURCES[kind],
    }
    profile = {"name": f"of {kind}", "resource_type": kind}
    if kind != "local":
        profile["username"] = "somebody"
    if kind == "slurm_ssh":
        folders = ("ssh_key_path", "jobs_remote_dir", "tasks_remote_dir")
        profile |= {field: f"/home/{field}" for field in folders}
    made = await admin.ok("POST", "/admin/v2/resource/", json=resource)
    of_it = await admin.ok("POST", f"/admin/v2/resource/{made['id']}/profile/", json=profile)

    for url in (f"/admin/v2/resource/{made['id']}/", f"/admin/v2/profile/{of_it['id']}/"):
        read = await admin.ok("GET", url)
        assert await admin.ok("PUT", url, json=read) == read


async def test_a_guest_is_written_as_they_are_read(
    owner: Any,
    project: dict[str, Any],
    new_person: Callable[..., Awaitable[Any]],
    invite: Callable[..., Awaitable[None]],
) -> None:
    guest = await new_person()
    await invite(guest, project, "r")
    url = f"/api/v2/project/{project['id']}/guest/"
    [read] = await owner.ok("GET", url)

    await owner.ok("PATCH", f"{url}?email={read['email']}", json=read)

    assert await owner.ok("GET", url) == [read]


async def test_images_are_written_as_they_are_read(owner: Any, dataset: dict[str, Any]) -> None:
    base = f"/api/v2/project/{dataset['project_id']}/dataset/"
    url = f"{base}{dataset['id']}/images/"
    image = {
        "zarr_url": f"{dataset['zarr_dir']}/plate.zarr",
        "origin": "s3://bucket/raw.zarr",
        "attributes": {"well": "A1", "n": 1, "z": 1.5, "ok": True},
        "types": {"is_3D": True},
    }
    await owner.ok("POST", url, json={**image, "has_warnings": None})
    [read] = (await owner.ok("POST", f"{url}query/"))["items"]

    assert read == image
    assert await owner.ok("PATCH", url, json=read) == read
    exported = await owner.ok("GET", f"{base}{dataset['id']}/export/")
    copy = await owner.ok("POST", f"{base}import/", json={**exported, "name": "copy"})
    again = await owner.ok("GET", f"{base}{copy['id']}/export/")
    assert again == {**exported, "name": "copy"}


async def test_workflows_and_templates_are_imported_as_they_are_read(
    owner: Any, runnable: dict[str, Any], recipe: dict[str, Any]
) -> None:
    base = f"/api/v2/project/{runnable['project_id']}/workflow/"
    workflow = await owner.ok("GET", f"{base}{runnable['id']}/export/")
    copy = await owner.ok("POST", f"{base}import/", json={**workflow, "name": "copy"})
    again = await owner.ok("GET", f"{base}{copy['id']}/export/")
    assert again == {**workflow, "name": "copy"}

    url = "/api/v2/workflow-template/"
    for version, part in ((2, "export/"), (3, "")):
        read = await owner.ok("GET", f"{url}{recipe['id']}/{part}")
        made = await owner.ok("POST", f"{url}import/", json={**read, "version": version})
        assert made["data"] == read["data"]
        assert made["version"] == version
