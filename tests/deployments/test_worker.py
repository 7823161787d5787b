"""The worker: how it shows its resource in Prefect, and what reaches the flows it starts."""

import io
import json
import zipfile
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolUpdate

from deployments.stack import Stack
from flows.engine.publication import ENTRYPOINTS
from tests.lab import Lab, eventually

POOL = "local"


async def test_the_work_pool_of_a_local_resource_has_the_type_of_its_worker(
    prefect: PrefectClient, lab: Lab
) -> None:
    pool = await prefect.read_work_pool(POOL)
    assert pool.type == "fractal-local"
    workers = await prefect.read_workers_for_work_pool(POOL, limit=10, offset=0)
    assert [worker.status for worker in workers] == ["ONLINE"]


async def test_the_runner_configuration_is_a_typed_form(prefect: PrefectClient, lab: Lab) -> None:
    template = (await prefect.read_work_pool(POOL)).base_job_template
    field = template["variables"]["properties"]["parallel_tasks_per_job"]
    assert {"type": "integer", "exclusiveMinimum": 0} in field["anyOf"]
    assert "at once" in field["description"]
    configuration = template["job_configuration"]
    assert configuration["parallel_tasks_per_job"] == "{{ parallel_tasks_per_job }}"


async def test_every_flow_has_a_deployment_on_the_pool(prefect: PrefectClient, lab: Lab) -> None:
    for flow in ENTRYPOINTS:
        deployment = await prefect.read_deployment_by_name(f"{flow}/{POOL}")
        assert deployment.work_pool_name == POOL


@pytest.fixture
async def paused(prefect: PrefectClient, lab: Lab) -> AsyncIterator[None]:
    """Until the test resumes it, the pool starts no flow run."""
    await prefect.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    yield
    await resume(prefect)


async def resume(prefect: PrefectClient) -> None:
    await prefect.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))


@pytest.mark.usefixtures("paused")
async def test_the_variables_of_a_flow_run_reach_its_units(
    prefect: PrefectClient, lab: Lab
) -> None:
    dataset = await lab.dataset("A", "B", "C")
    job = await lab.submit(await lab.workflow("Process"), dataset)
    await prefect.update_flow_run(job["flow_run_id"], job_variables={"parallel_tasks_per_job": 7})
    await resume(prefect)
    assert (await lab.ended(job))["status"] == "done"
    assert await max_parallel(lab, job) == 7


async def test_the_variables_of_a_deployment_reach_the_units_of_its_flow_runs(
    prefect: PrefectClient, lab: Lab
) -> None:
    deployment = await prefect.read_deployment_by_name(f"run-job/{POOL}")

    async def set_variables(variables: dict[str, Any]) -> None:
        await prefect.update_deployment(deployment.id, DeploymentUpdate(job_variables=variables))

    await set_variables({"parallel_tasks_per_job": 1})
    try:
        dataset = await lab.dataset("A", "B", "C")
        workflow = await lab.workflow(("Process", {"args_parallel": {"seconds": 0.3}}))
        job = await lab.run(workflow, dataset)
    finally:
        await set_variables({})
    assert await max_parallel(lab, job) == 1
    _, units = await lab.history(workflow, dataset)
    times = sorted((unit["started_at"], unit["ended_at"]) for unit in units)
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(times))


async def test_a_change_of_the_resource_leaves_its_deployments_as_they_were_set(
    prefect: PrefectClient, lab: Lab
) -> None:
    deployment = await prefect.read_deployment_by_name(f"run-job/{POOL}")
    variables = {"parallel_tasks_per_job": 3}
    await prefect.update_deployment(deployment.id, DeploymentUpdate(job_variables=variables))
    found = await lab.ok("GET", "/admin/v2/resource/")
    (resource,) = [each for each in found if each["name"] == POOL]
    url = f"/admin/v2/resource/{resource.pop('id')}/"
    del resource["timestamp_created"]
    config = {"jobs_runner_config": {"parallel_tasks_per_job": 2}}
    try:
        await lab.ok("PUT", url, json=resource | config)
        template = (await prefect.read_work_pool(POOL)).base_job_template
        assert template["variables"]["properties"]["parallel_tasks_per_job"]["default"] == 2
        assert (await prefect.read_deployment(deployment.id)).job_variables == variables
    finally:
        await lab.ok("PUT", url, json=resource)
        await prefect.update_deployment(deployment.id, DeploymentUpdate(job_variables={}))


async def test_a_job_that_prefect_refuses_waits_until_the_reason_is_mended(
    prefect: PrefectClient, lab: Lab, stack: Stack
) -> None:
    deployment = await prefect.read_deployment_by_name(f"run-job/{POOL}")
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")

    async def set_variables(variables: dict[str, Any]) -> None:
        await prefect.update_deployment(deployment.id, DeploymentUpdate(job_variables=variables))

    async def refused() -> bool:
        return "waits, Prefect refuses it" in worker.last_words(100)

    (worker,) = (service for service in stack.services if service.name == "worker")
    await set_variables({"parallel_tasks_per_job": "many"})
    try:
        await lab.client.post(
            f"{lab.base}/job/submit/",
            params={"workflow_id": workflow["id"], "dataset_id": dataset["id"]},
            json={},
        )
        await eventually(refused, bool)
        stack.check()
    finally:
        await set_variables({})
    jobs = await lab.ok("GET", f"{lab.base}/job/")
    assert (await lab.ended(max(jobs, key=lambda job: job["id"])))["status"] == "done"


async def max_parallel(lab: Lab, job: dict[str, Any]) -> int:
    """How many units of a job's first workflow task could run at once."""
    answer = await lab.client.get(f"{lab.base}/job/{job['id']}/download/")
    with zipfile.ZipFile(io.BytesIO(answer.raise_for_status().content)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/batch.json")]
        return int(json.loads(archive.read(name))["max_parallel"])
