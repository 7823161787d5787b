"""A limit of running jobs per user: others get their turn, and no slot stays empty."""

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.states import AwaitingConcurrencySlot

from deployments.services import Service
from deployments.stack import Stack
from flows.engine.client import open_engine
from fractal_models.settings import Settings
from tests.lab import Lab, eventually


async def test_a_flow_run_that_was_deleted_meanwhile_is_not_put_off(stack: Stack) -> None:
    settings = Settings(
        database_url=stack.environment["FRACTAL_DATABASE_URL"],
        prefect_api_url=stack.environment["PREFECT_API_URL"],
        prefect_auth_string=stack.prefect_auth,
    )
    async with open_engine(settings) as engine:
        gone = uuid4()
        await engine.schedule(gone, AwaitingConcurrencySlot())
        assert await engine.flow_runs([gone]) == {}


@pytest.fixture
async def one_job_per_user(
    stack: Stack, lab: Lab, prefect: PrefectClient
) -> AsyncIterator[PrefectClient]:
    """The worker with the limit of one job per user, on a work pool with two slots."""
    (worker,) = (service for service in stack.services if service.name == "worker")
    environment = worker.environment
    await prefect.update_work_pool("local", WorkPoolUpdate(concurrency_limit=2))
    _restart(stack, worker, {**environment, "FRACTAL_MAX_RUNNING_JOBS_PER_USER": "1"})
    yield prefect
    _restart(stack, worker, environment)
    await prefect.update_work_pool("local", WorkPoolUpdate(concurrency_limit=None))


def _restart(stack: Stack, worker: Service, environment: Any) -> None:
    worker.stop()
    worker.environment = environment
    stack.start("worker")


async def test_a_user_at_the_limit_waits_and_leaves_the_slots_to_others(
    one_job_per_user: PrefectClient, lab: Lab, bob: Lab, stack: Stack, gate: Path
) -> None:
    reason = f"{stack.initialised.admin_email} runs 1 job on this resource, as many as one user may"
    jobs = [
        await lab.submit_process(until=str(gate)),
        await lab.submit_process(),
        await lab.submit_process(),
    ]
    bobs = await bob.ended(await bob.submit_process())
    assert bobs["status"] == "done"
    assert "Waiting" not in bobs["log"]
    told = await eventually(lambda: lab.job(jobs[2]), lambda now: now["log"])
    assert reason in told["log"]
    assert (await lab.job(jobs[0]))["status"] == "submitted"
    gate.touch()
    ended = [await lab.ended(job) for job in jobs]
    assert [job["status"] for job in ended] == ["done"] * 3
    assert f"{reason}.\n" in ended[1]["log"]
    runs = [await one_job_per_user.read_flow_run(job["flow_run_id"]) for job in jobs]
    for before, after in pairwise(runs):
        assert before.end_time < after.start_time
