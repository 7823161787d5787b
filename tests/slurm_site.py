"""The cluster of the tests as a resource of a stack, with a user of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.cluster import Cluster
from tests.lab import Lab, Server, logged_in

PASSWORD = "of a user of the cluster"
RUNNER_CONFIG = {
    "default_slurm_config": {"partition": "main", "cpus_per_task": 1, "mem": "50M"},
    "batching_config": {
        "target_cpus_per_job": 2,
        "max_cpus_per_job": 4,
        "target_mem_per_job": "1G",
        "max_mem_per_job": "1G",
        "target_num_jobs": 10,
        "max_num_jobs": 20,
    },
}


@asynccontextmanager
async def lab_at(
    cluster: Cluster, server: Server, admin: Lab, resource: dict[str, Any]
) -> AsyncIterator[Lab]:
    """A user, named like the resource, at work on the cluster as this resource, which is made.

    A stack must have been started with `KNOWN_HOSTS` as its FRACTAL_SSH_KNOWN_HOSTS.
    """
    cluster.known_hosts.write_text(cluster.host_key)
    made = await admin.ok("POST", "/admin/v2/resource/", json=resource)
    profile = profile_body(cluster, made, cluster.user)
    async with lab_of_user(cluster, server, admin, made, profile) as lab:
        yield lab


@asynccontextmanager
async def lab_of_user(
    cluster: Cluster, server: Server, admin: Lab, resource: dict[str, Any], profile: dict[str, Any]
) -> AsyncIterator[Lab]:
    """A user, named like the profile, which is made, at work on a resource that there is."""
    name, project_dir = profile["name"], cluster.root / profile["username"] / "projects"
    user = {"email": f"{name}@example.org", "password": PASSWORD}
    made = await admin.ok("POST", f"/admin/v2/resource/{resource['id']}/profile/", json=profile)
    body = {**user, "project_dirs": [str(project_dir)]}
    registered = await admin.ok("POST", "/auth/register/", json=body)
    change = {"profile_id": made["id"], "is_verified": True}
    await admin.ok("PATCH", f"/auth/users/{registered['id']}/", json=change)
    async with logged_in(server, **user) as client:
        lab = Lab(client, project_dir)
        lab.project_id = (await lab.ok("POST", "/api/v2/project/", json={"name": name}))["id"]
        yield lab


def resource_body(cluster: Cluster, data_dir: Path, kind: str) -> dict[str, Any]:
    """A request for the cluster as a resource."""
    return {
        "type": kind,
        "name": kind,
        "host": f"127.0.0.1:{cluster.ssh_port}" if kind == "slurm_ssh" else None,
        "jobs_local_dir": str(data_dir / f"{kind}-jobs"),
        "jobs_runner_config": RUNNER_CONFIG,
        "jobs_slurm_python_worker": "/usr/bin/python3",
        "jobs_poll_interval": 1,
        "tasks_local_dir": str(cluster.server_folder / f"{kind}-tasks"),
        "tasks_python_config": {
            "default_version": "3.11",
            "versions": {"3.11": "/usr/bin/python3"},
        },
        "tasks_pixi_config": {},
    }


def profile_body(
    cluster: Cluster, resource: dict[str, Any], user: str, *, name: str | None = None
) -> dict[str, Any]:
    """A request for the profile of a user of the cluster, named like the resource if not else."""
    body = {
        "name": name or resource["name"],
        "resource_type": resource["type"],
        "username": user,
    }
    if resource["type"] == "slurm_ssh":
        folder = str(cluster.root / user)
        body |= {
            "ssh_key_path": str(cluster.key_path),
            "jobs_remote_dir": f"{folder}/ssh-jobs",
            "tasks_remote_dir": f"{folder}/ssh-tasks",
        }
    return body
