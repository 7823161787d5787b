"""Jobs on a SLURM cluster, by sudo and by SSH: the same flow, history and accounting as here."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks import journal as program
from benchmarks.consistency import task_bodies
from deployments.services import Service, python_module
from deployments.stack import Stack
from fractal_models.tables import AccountingRecordSlurm
from tests.cluster import Cluster
from tests.flows.conftest import Journal, process_of, require_consistent
from tests.lab import Lab

Sessions = async_sessionmaker[AsyncSession]
PASSWORD = "of a user of the cluster"
NAMES = [f"image-{number:02d}" for number in range(12)]
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
        "tasks_local_dir": str(stack.data_dir / f"{kind}-tasks"),
        "tasks_python_config": {"default_version": "3", "versions": {"3": "/usr/bin/python3"}},
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


@pytest.fixture(scope="session", params=["slurm_sudo", "slurm_ssh"])
async def slurm_lab(
    request: pytest.FixtureRequest, cluster: Cluster, stack: Stack, lab: Lab
) -> AsyncIterator[Lab]:
    """A user of the cluster, with the tasks that keep a journal, and a worker for the cluster."""
    kind = request.param
    resource = await lab.ok("POST", "/admin/v2/resource/", json=resource_body(cluster, stack, kind))
    profile = await lab.ok(
        "POST",
        f"/admin/v2/resource/{resource['id']}/profile/",
        json=profile_body(cluster, kind),
    )
    user = {"email": f"{kind}@example.org", "password": PASSWORD}
    project_dir = cluster.user_folder / "projects"
    made = await lab.ok(
        "POST", "/auth/register/", json={**user, "project_dirs": [str(project_dir)]}
    )
    change = {"profile_id": profile["id"], "is_verified": True}
    await lab.ok("PATCH", f"/auth/users/{made['id']}/", json=change)
    known_hosts = cluster.root / "known_hosts"
    known_hosts.write_text(cluster.host_key)
    worker = Service(
        f"worker {kind}",
        python_module("deployments.cli", "worker", "--resource", kind),
        {**stack.environment, "FRACTAL_SSH_KNOWN_HOSTS": str(known_hosts)},
        stack.data_dir / "logs" / f"worker-{kind}.log",
    )
    worker.start()
    async with httpx.AsyncClient(base_url=stack.api_url, timeout=30) as client:
        credentials = {"username": user["email"], "password": PASSWORD}
        login = await client.post("/auth/token/login/", data=credentials)
        client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        own = Lab(client, project_dir)
        own.project_id = (await own.ok("POST", "/api/v2/project/", json={"name": kind}))["id"]
        copy = cluster.root / "journal.py"
        shutil.copy(program.__file__, copy)
        for body in task_bodies(kind, ["/usr/bin/python3", "-I", "-S", str(copy)]):
            own.tasks[body["name"]] = (await own.ok("POST", "/api/v2/task/", json=body))["id"]
        yield own
    worker.stop()


@pytest.fixture
def slurm_journal(cluster: Cluster, request: pytest.FixtureRequest) -> Journal:
    """A journal that the cluster's user can write."""
    path = cluster.user_folder / f"{request.node.name}.jsonl"
    journal = Journal(path)
    shutil.chown(path, cluster.user)
    return journal


async def _submit_all_types(lab: Lab, journal: Journal, seconds: float = 0.05) -> dict[str, Any]:
    args = {**journal.args, "seconds": seconds}
    some, others = {**args, "names": NAMES[:3]}, {**args, "names": NAMES[3:6]}
    workflow = await lab.workflow(
        ("Journal convert", {"args_non_parallel": some}),
        (
            "Journal convert in two",
            {"args_non_parallel": others, "args_parallel": args},
        ),
        ("Journal process", {"args_parallel": args}),
        ("Journal combine", {"args_non_parallel": args}),
        ("Journal copy", {"args_non_parallel": args, "args_parallel": args}),
    )
    return await lab.submit(workflow, await lab.dataset())


async def test_all_types_of_tasks_run_on_the_cluster(
    slurm_lab: Lab, slurm_journal: Journal, fractal: Sessions
) -> None:
    job = await _submit_all_types(slurm_lab, slurm_journal)
    ended = await slurm_lab.ended(job)
    assert ended["status"] == "done", ended["log"]
    await require_consistent(fractal, job, slurm_journal)
    async with fractal() as session:
        records = await session.exec(
            select(AccountingRecordSlurm).where(AccountingRecordSlurm.fractal_job_id == job["id"])
        )
        assert len(records.all()) == 7  # one array per phase of a task


async def test_a_job_on_a_cluster_survives_the_end_of_its_process(
    slurm_lab: Lab, slurm_journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    args = {**slurm_journal.args, "seconds": 1}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES))
    await slurm_journal.reaches(1)
    (await process_of(prefect, job)).kill()
    ended = await slurm_lab.ended(job)
    assert "taken up again" in ended["log"]
    await require_consistent(fractal, job, slurm_journal)
    assert len(slurm_journal.began()) == len(NAMES)


async def test_a_job_that_is_stopped_leaves_no_slurm_job(
    slurm_lab: Lab, slurm_journal: Journal, cluster: Cluster
) -> None:
    args = {**slurm_journal.args, "seconds": 60}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES))
    while not slurm_journal.began():
        await asyncio.sleep(0.1)
    await slurm_lab.ok("GET", f"{slurm_lab.base}/job/{job['id']}/stop/")
    ended = await slurm_lab.ended(job)
    assert "stopped" in ended["log"]
    await cluster.wait_idle()
    assert not slurm_journal.ended()


async def test_what_slurm_says_is_told_everywhere(
    slurm_lab: Lab, slurm_journal: Journal, cluster: Cluster
) -> None:
    args = {**slurm_journal.args, "seconds": 60}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    dataset = await slurm_lab.dataset(*NAMES[:2])
    job = await slurm_lab.submit(workflow, dataset)
    while not slurm_journal.began():
        await asyncio.sleep(0.1)
    await cluster.cancel_all()
    ended = await slurm_lab.ended(job)
    assert ended["status"] == "failed"
    assert "CANCELLED" in ended["log"]
    assert "CANCELLED" in ended["executor_error_log"]
    _, units = await slurm_lab.history(workflow, dataset)
    assert {unit["status"] for unit in units} == {"failed"}
    assert all("CANCELLED" in Path(unit["logfile"]).read_text() for unit in units)


async def test_a_resource_that_takes_nothing_new_lets_no_task_begin(
    slurm_lab: Lab, slurm_journal: Journal, lab: Lab, cluster: Cluster, stack: Stack
) -> None:
    args = {**slurm_journal.args, "seconds": 1}
    workflow = await slurm_lab.workflow(
        ("Journal process", {"args_parallel": args}),
        ("Journal combine", {"args_non_parallel": args}),
    )
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES[:2]))
    while not slurm_journal.began():
        await asyncio.sleep(0.1)
    (resource,) = [
        each
        for each in await lab.ok("GET", "/admin/v2/resource/")
        if each["name"] == job["project_dump"]["name"]
    ]
    url = f"/admin/v2/resource/{resource['id']}/"
    body = resource_body(cluster, stack, resource["type"])
    await lab.ok("PUT", url, json={**body, "prevent_new_submissions": True})
    ended = await slurm_lab.ended(job)
    await lab.ok("PUT", url, json=body)
    assert ended["status"] == "failed"
    assert "prevent_new_submissions" in ended["log"]
    assert len(slurm_journal.ended()) == 2
