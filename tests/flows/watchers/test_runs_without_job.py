"""Runs that began in Prefect, and whose process died before there was a job."""

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Pending, Running, State

from deployments.stack import Stack
from tests.lab import Lab, eventually


@pytest.fixture
async def waiting(prefect: PrefectClient, stack: Stack, lab: Lab) -> FlowRun:
    """A flow run that no worker begins, since a test is to tell what it is at."""
    await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=True))
    deployment = await prefect.read_deployment_by_name("run-job/local")
    parameters = {
        "user": stack.initialised.admin_email,
        "project": "lab",
        "workflow": str((await lab.workflow("Process"))["id"]),
        "dataset": str((await lab.dataset("A"))["id"]),
    }
    return await prefect.create_flow_run_from_deployment(deployment.id, parameters=parameters)


async def set_state(prefect: PrefectClient, flow_run: FlowRun, state: State) -> None:
    await prefect.set_flow_run_state(flow_run.id, state, force=True)
    await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=False))


async def ended(prefect: PrefectClient, flow_run: FlowRun) -> FlowRun:
    return await eventually(
        lambda: prefect.read_flow_run(flow_run.id), lambda now: now.state and now.state.is_final()
    )


@pytest.mark.parametrize("state", [Pending(), Running()])
async def test_it_is_taken_up_again_and_becomes_a_job(
    prefect: PrefectClient, lab: Lab, waiting: FlowRun, state: State
) -> None:
    await set_state(prefect, waiting, state)
    assert (await ended(prefect, waiting)).state_name == "Completed"
    jobs = await lab.ok("GET", f"{lab.base}/job/")
    (job,) = [job for job in jobs if job["flow_run_id"] == str(waiting.id)]
    assert (await lab.ended(job))["status"] == "done"


async def test_it_is_cancelled_if_it_was_told_to_stop(
    prefect: PrefectClient, lab: Lab, waiting: FlowRun
) -> None:
    await set_state(prefect, waiting, Cancelling())
    assert (await ended(prefect, waiting)).state_name == "Cancelled"
    jobs = await lab.ok("GET", f"{lab.base}/job/")
    assert str(waiting.id) not in [job["flow_run_id"] for job in jobs]
