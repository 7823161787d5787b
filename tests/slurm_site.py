"""The cluster of the tests as a resource of a stack, with a user of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from deployments.stack import Stack
from tests.cluster import Cluster
from tests.lab import Lab, logged_in

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
async def lab_at(cluster: Cluster, stack: Stack, admin: Lab, kind: str) -> AsyncIterator[Lab]:
    """A user at work on the cluster, which is a resource of type and name `kind`.

    The stack must have been started with `KNOWN_HOSTS` as its FRACTAL_SSH_KNOWN_HOSTS.
    """
    user = {"email": f"{kind}@example.org", "password": PASSWORD}
    project_dir = cluster.user_folder / "projects"
    await _register(cluster, stack, admin, kind, {**user, "project_dirs": [str(project_dir)]})
    cluster.known_hosts.write_text(cluster.host_key)
    async with logged_in(stack, **user) as client:
        lab = Lab(client, project_dir)
        lab.project_id = (await lab.ok("POST", "/api/v2/project/", json={"name": kind}))["id"]
        yield lab


async def _register(
    cluster: Cluster, stack: Stack, admin: Lab, kind: str, user: dict[str, Any]
) -> None:
    """Make the resource, its profile, and the user."""
    resource = await admin.ok(
        "POST", "/admin/v2/resource/", json=resource_body(cluster, stack, kind)
    )
    profile = await admin.ok(
        "POST",
        f"/admin/v2/resource/{resource['id']}/profile/",
        json=profile_body(cluster, kind),
    )
    made = await admin.ok("POST", "/auth/register/", json=user)
    change = {"profile_id": profile["id"], "is_verified": True}
    await admin.ok("PATCH", f"/auth/users/{made['id']}/", json=change)


def resource_body(cluster: Cluster, stack: Stack, kind: str) -> dict[str, Any]:
    """A request for the cluster as a resource."""
    return {
        "type": kind,
        "name": kind,
        "host": f"127.0.0.1:{cluster.ssh_port}" if kind == "slurm_ssh" else None,
        "jobs_local_dir": str(stack.data_dir / f"{kind}-jobs"),
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


def profile_body(cluster: Cluster, kind: str) -> dict[str, Any]:
    """A request for the profile of the cluster's user."""
    body = {"name": kind, "resource_type": kind, "username": cluster.user}
    if kind == "slurm_ssh":
        folder = str(cluster.user_folder)
        body |= {
            "ssh_key_path": str(cluster.key_path),
            "jobs_remote_dir": f"{folder}/ssh-jobs",
            "tasks_remote_dir": f"{folder}/ssh-tasks",
        }
    return body
