"""A flow run that began in Prefect and lost its process before it had a job gets another."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Pending, Running, Scheduled

from deployments.stack import Stack
from tests.lab import Lab, eventually


@pytest.fixture
async def held(prefect: PrefectClient) -> AsyncIterator[None]:
    """The pool starts no flow run."""
    await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=True))
    yield
    await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=False))


async def run_without_process(
    prefect: PrefectClient, stack: Stack, lab: Lab, state: State[Any]
) -> FlowRun:
    deployment = await prefect.read_deployment_by_name("run-job/local")
    dataset, workflow = await lab.dataset("A"), await lab.workflow("Process")
    parameters = {
        "user": stack.initialised.admin_email,
        "project": str(lab.project_id),
        "workflow": str(workflow["id"]),
        "dataset": str(dataset["id"]),
    }
    flow_run = await prefect.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    await prefect.set_flow_run_state(flow_run.id, state, force=True)
    return flow_run


async def final_state(prefect: PrefectClient, flow_run: FlowRun) -> State[Any]:
    async def state() -> State[Any]:
        return (await prefect.read_flow_run(flow_run.id)).state or Scheduled()

    return await eventually(state, lambda now: now.is_final())


@pytest.mark.usefixtures("held")
async def test_a_run_without_a_process_is_started_again_or_ended(
    lab: Lab, prefect: PrefectClient, stack: Stack
) -> None:
    running, pending, cancelling = [
        await run_without_process(prefect, stack, lab, state)
        for state in (Running(), Pending(), Cancelling())
    ]
    assert (await final_state(prefect, cancelling)).is_cancelled()
    await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=False))
    for flow_run in (running, pending):
        assert (await final_state(prefect, flow_run)).is_completed()
    jobs = await lab.ok("GET", f"{lab.base}/job/")
    made = [job["flow_run_id"] for job in jobs]
    assert [made.count(str(run.id)) for run in (running, pending, cancelling)] == [1, 1, 0]
