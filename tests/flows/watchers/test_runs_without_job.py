"""Flow runs whose process died before there was a job, and those that their job has left."""

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


@pytest.mark.parametrize(("fails", "name"), [(False, "Completed"), (True, "Cancelled")])
async def test_one_that_was_to_stop_when_its_job_had_just_ended_ends_too(
    prefect: PrefectClient, lab: Lab, fails: bool, name: str
) -> None:
    """Prefect does not let it complete: it would be Cancelling, and take a slot, for ever."""
    args = {"args_parallel": {"fail_on": ["A"] if fails else []}}
    job = await lab.run(await lab.workflow(("Process", args)), await lab.dataset("A"))
    flow_run = await eventually(
        lambda: prefect.read_flow_run(job["flow_run_id"]), lambda now: now.state.is_final()
    )
    await set_state(prefect, flow_run, Cancelling())
    assert (await ended(prefect, flow_run)).state_name == name
    assert (await lab.job(job))["status"] == job["status"]
