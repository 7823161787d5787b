"""Pauses, limits and priorities that are set in Prefect hold for jobs, and jobs say so."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolUpdate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectAlreadyExists

from flows.engine.wait_reasons import PREFECT_AWAY
from tests.lab import Lab, eventually

POOL, RUN_JOB = "local", "run-job/local"


class Pool:
    """The work pool of the lab, its queues and its deployment `run-job`, as set in Prefect."""

    def __init__(self, client: PrefectClient) -> None:
        self.client = client

    async def set(self, **fields: Any) -> None:
        await self.client.update_work_pool(POOL, WorkPoolUpdate(**fields))

    async def set_queue(self, name: str, **fields: Any) -> None:
        with suppress(ObjectAlreadyExists):
            await self.client.create_work_queue(name, work_pool_name=POOL)
        queue = await self.client.read_work_queue_by_name(name, POOL)
        await self.client.update_work_queue(queue.id, **fields)

    async def set_deployment(self, **fields: Any) -> None:
        deployment = await self.client.read_deployment_by_name(RUN_JOB)
        await self.client.update_deployment(deployment.id, DeploymentUpdate(**fields))

    async def put_jobs_on(self, queue: str) -> None:
        await self.set_deployment(work_pool_name=POOL, work_queue_name=queue)


@pytest.fixture
async def pool(prefect: PrefectClient, lab: Lab) -> AsyncIterator[Pool]:
    """The pool without limits, also when the test has ended."""
    pool = Pool(prefect)
    yield pool
    await pool.put_jobs_on("default")
    await pool.set_deployment(concurrency_limit=None)
    await pool.set_queue("default", is_paused=False, priority=1)
    await pool.set(is_paused=False, concurrency_limit=None)


def reasons(job: dict[str, Any]) -> list[str]:
    """Why a job has waited so far; that Prefect was too busy to answer is not of interest."""
    told = [line.split(" Waiting: ")[1] for line in _log(job).splitlines()]
    return [reason for reason in told if reason != PREFECT_AWAY]


async def waiting(lab: Lab, job: dict[str, Any]) -> list[str]:
    """The reasons that a job gives, when it gives one."""
    told = await eventually(lambda: lab.job(job), reasons)
    assert told["status"] == "submitted", told["log"]
    assert not Path(told["working_dir"]).exists()
    assert (await lab.job(job, show_tmp_logs=True))["log"] == told["log"]
    return reasons(told)


async def flow_run_of(prefect: PrefectClient, job: dict[str, Any]) -> FlowRun:
    return await prefect.read_flow_run(job["flow_run_id"])


async def began(lab: Lab, job: dict[str, Any]) -> None:
    await eventually(lambda: lab.job(job, show_tmp_logs=True), lambda now: "begins" in _log(now))


def _log(job: dict[str, Any]) -> str:
    return job["log"] or ""


async def test_the_limit_of_the_work_pool_has_jobs_run_one_after_the_other(
    lab: Lab, pool: Pool, prefect: PrefectClient, gate: Path
) -> None:
    reason = "The work pool 'local' runs 1 flow run, as many as its concurrency limit allows."
    await pool.set(concurrency_limit=1)
    first = await lab.submit_process(until=str(gate))
    await began(lab, first)
    second = await lab.submit_process()
    assert await waiting(lab, second) == [reason]
    gate.touch()
    ended = [await lab.ended(job) for job in (first, second)]
    assert [job["status"] for job in ended] == ["done", "done"]
    runs = [await flow_run_of(prefect, job) for job in ended]
    assert runs[0].end_time < runs[1].start_time
    assert " Waited " in ended[1]["log"].splitlines()[0]
    assert ended[1]["log"].splitlines()[0].endswith(reason)
    assert "Wait" not in ended[0]["log"]


async def test_a_job_says_each_reason_once_and_begins_without_it(
    lab: Lab, pool: Pool, prefect: PrefectClient, gate: Path
) -> None:
    pool_paused = "The work pool 'local' is paused."
    queue_paused = "The queue 'default' of work pool 'local' is paused."
    await pool.set(is_paused=True)
    job = await lab.submit_process(until=str(gate))
    assert await waiting(lab, job) == [pool_paused]
    await pool.set_queue("default", is_paused=True)
    await pool.set(is_paused=False)
    await eventually(lambda: lab.job(job), lambda now: queue_paused in now["log"])
    assert await waiting(lab, job) == [pool_paused, queue_paused]
    await pool.set_queue("default", is_paused=False)
    await began(lab, job)
    assert (await lab.job(job))["log"] is None
    gate.touch()
    ended = await lab.ended(job)
    assert f"{pool_paused} Then: {queue_paused}" in ended["log"]
    logs = await prefect.read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[job["flow_run_id"]])), limit=200, offset=0
    )
    told = [log.message for log in logs if log.message.startswith("Waiting: ")]
    assert sorted(told) == sorted(f"Waiting: {reason}" for reason in (pool_paused, queue_paused))


async def test_a_job_on_the_queue_with_the_better_priority_begins_first(
    lab: Lab, pool: Pool, prefect: PrefectClient
) -> None:
    await pool.set(is_paused=True, concurrency_limit=1)
    await pool.set_queue("urgent", priority=1)
    await pool.set_queue("default", priority=2)
    patient = await lab.submit_process()
    await pool.put_jobs_on("urgent")
    urgent = await lab.submit_process()
    await pool.set(is_paused=False)
    runs = {}
    for job in (patient, urgent):
        assert (await lab.ended(job))["status"] == "done"
        runs[job["id"]] = await flow_run_of(prefect, job)
    assert [run.work_queue_name for run in runs.values()] == ["default", "urgent"]
    assert runs[urgent["id"]].end_time < runs[patient["id"]].start_time


async def test_the_limit_of_a_queue_holds_for_the_jobs_on_it_alone(
    lab: Lab, pool: Pool, gate: Path
) -> None:
    await pool.set_queue("narrow", concurrency_limit=1)
    await pool.put_jobs_on("narrow")
    first = await lab.submit_process(until=str(gate))
    await began(lab, first)
    second = await lab.submit_process()
    await pool.put_jobs_on("default")
    assert (await lab.ended(await lab.submit_process()))["status"] == "done"
    (reason,) = await waiting(lab, second)
    assert reason.startswith("The queue 'narrow' of work pool 'local' runs 1 flow run,")
    assert (await lab.job(first))["status"] == "submitted"
    gate.touch()
    assert (await lab.ended(second))["status"] == "done"


async def test_the_limit_of_the_deployment_is_told(lab: Lab, pool: Pool, gate: Path) -> None:
    await pool.set_deployment(concurrency_limit=1)
    first = await lab.submit_process(until=str(gate))
    await began(lab, first)
    second = await lab.submit_process()
    assert await waiting(lab, second) == ["The concurrency limit of its deployment is reached."]
    await lab.ok("GET", f"{lab.base}/job/{second['id']}/stop/")
    log = (await lab.ended(second))["log"]
    assert log == f"JOB ERROR in Fractal job {second['id']}: The job was stopped before it began."
    gate.touch()
    await lab.ended(first)


async def test_a_change_of_the_resource_leaves_what_was_set_in_prefect(
    lab: Lab, pool: Pool, prefect: PrefectClient
) -> None:
    found = await lab.ok("GET", "/admin/v2/resource/")
    (resource,) = [each for each in found if each["name"] == POOL]
    url = f"/admin/v2/resource/{resource.pop('id')}/"
    del resource["timestamp_created"]
    await pool.set_queue("urgent", priority=1, concurrency_limit=3)
    await pool.put_jobs_on("urgent")
    await pool.set_deployment(concurrency_limit=4)
    await pool.set(is_paused=True, concurrency_limit=5)
    await lab.ok("PUT", url, json=resource)
    deployment = await prefect.read_deployment_by_name(RUN_JOB)
    assert deployment.work_queue_name == "urgent"
    assert deployment.global_concurrency_limit
    assert deployment.global_concurrency_limit.limit == 4
    assert deployment.description.startswith("Runs a Fractal job")
    queue = await prefect.read_work_queue_by_name("urgent", POOL)
    assert (queue.priority, queue.concurrency_limit) == (1, 3)
    work_pool = await prefect.read_work_pool(POOL)
    assert (work_pool.is_paused, work_pool.concurrency_limit) == (True, 5)
