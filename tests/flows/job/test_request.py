"""Runs that begin in Prefect: they become jobs like any other, or say why not."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import AwaitingRetry

from deployments.stack import Stack
from flows.parameters import JobRequest
from tests.journal import Journal
from tests.lab import Lab, eventually, logged_in

Begin = Callable[..., Awaitable[FlowRun]]


@pytest.fixture
def begin(prefect: PrefectClient, stack: Stack, lab: Lab) -> Begin:
    """Begins a run of the deployment, as the UI does."""

    async def make(
        workflow: dict[str, Any], dataset: dict[str, Any], /, **parameters: Any
    ) -> FlowRun:
        deployment = await prefect.read_deployment_by_name("run-job/local")
        given = {
            "user": stack.initialised.admin_email,
            "project": "lab",
            "workflow": workflow["name"],
            "dataset": str(dataset["id"]),
        }
        return await prefect.create_flow_run_from_deployment(
            deployment.id, parameters={**given, **parameters}
        )

    return make


async def ended(prefect: PrefectClient, flow_run: FlowRun) -> FlowRun:
    """A flow run when it has ended."""
    return await eventually(
        lambda: prefect.read_flow_run(flow_run.id), lambda now: now.state and now.state.is_final()
    )


async def retry(prefect: PrefectClient, job: dict[str, Any]) -> None:
    """Retry the run of a job, as the UI does, which offers that when the run has ended."""

    async def state() -> State | None:
        return (await prefect.read_flow_run(UUID(job["flow_run_id"]))).state

    await eventually(state, lambda now: now is not None and now.is_final())
    await prefect.set_flow_run_state(UUID(job["flow_run_id"]), AwaitingRetry(), force=True)


async def jobs_of(lab: Lab, flow_run: FlowRun) -> list[dict[str, Any]]:
    jobs = await lab.ok("GET", f"{lab.base}/job/")
    return [job for job in jobs if job["flow_run_id"] == str(flow_run.id)]


async def job_of(lab: Lab, flow_run: FlowRun) -> dict[str, Any]:
    (job,) = await jobs_of(lab, flow_run)
    return await lab.ended(job)


async def test_a_run_that_begins_in_prefect_is_a_job_like_any_other(
    lab: Lab, prefect: PrefectClient, begin: Begin, stack: Stack
) -> None:
    dataset = await lab.dataset("A", "B", "C")
    workflow = await lab.workflow("Combine", "Process")
    filters = {"attribute_filters": {"well": ["A", "C"]}}
    flow_run = await ended(prefect, await begin(workflow, dataset, first_task=1, **filters))
    job = await job_of(lab, flow_run)
    assert (job["status"], job["user_email"]) == ("done", stack.initialised.admin_email)
    assert (job["first_task_index"], job["attribute_filters"]) == (1, {"well": ["A", "C"]})
    images = await lab.images(dataset)
    assert [n for n, i in images.items() if i["types"].get("processed")] == ["A", "C"]
    assert flow_run.name == f"job {job['id']} · {workflow['name']} on {dataset['name']}"
    assert {"project:lab", f"user:{job['user_email']}", "resource:local"} <= set(flow_run.tags)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"user": "nobody@example.org"}, "User nobody@example.org not found."),
        ({"project": "unknown"}, "Project 'unknown' not found."),
        ({"project": "999999"}, "Project 999999 not found."),
        ({"workflow": "unknown"}, "Workflow 'unknown' not found."),
        ({"dataset": "999999"}, "Dataset 999999 not found."),
        ({"first_task": 7}, "are not in workflow"),
        ({"first_task": 1, "last_task": 0}, "first_task_index 1 is after last_task_index 0"),
        ({"slurm_account": "unknown"}, "SLURM account 'unknown' is not among those"),
        ({"attribute_filters": {"well": []}}, "is empty: give the values to keep"),
    ],
)
async def test_a_run_that_the_api_would_refuse_fails_with_its_words_and_makes_no_job(
    lab: Lab, prefect: PrefectClient, begin: Begin, parameters: dict[str, Any], told: str
) -> None:
    dataset = await lab.dataset("A")
    workflow = await lab.workflow("Process")
    flow_run = await ended(prefect, await begin(workflow, dataset, **parameters))
    assert flow_run.state is not None
    assert flow_run.state.name == "Failed"
    assert told in (flow_run.state.message or "")
    assert await jobs_of(lab, flow_run) == []


async def test_the_form_refuses_values_of_another_type(lab: Lab, begin: Begin) -> None:
    dataset = await lab.dataset("A")
    with pytest.raises(PrefectHTTPStatusError, match="first_task"):
        await begin(await lab.workflow("Process"), dataset, first_task="the second")


async def test_a_name_that_several_datasets_have_is_refused_with_their_numbers(
    lab: Lab, prefect: PrefectClient, begin: Begin
) -> None:
    dataset = await lab.dataset("A")
    other = await lab.dataset("B")
    workflow = await lab.workflow("Process")
    flow_run = await ended(prefect, await begin(workflow, dataset, dataset=dataset["name"]))
    message = (flow_run.state and flow_run.state.message) or ""
    assert "could be any of these" in message
    assert f"{dataset['id']}, {other['id']}" in message


async def test_a_user_may_run_in_prefect_what_they_may_run_over_rest(
    lab: Lab, prefect: PrefectClient, begin: Begin, stack: Stack
) -> None:
    body = {"email": "stranger@example.org", "password": "of a stranger", "project_dirs": ["/"]}
    await lab.ok("POST", "/auth/register/", json=body)
    dataset = await lab.dataset("A")
    workflow = await lab.workflow("Process")
    run = await ended(prefect, await begin(workflow, dataset, user=body["email"]))
    assert run.state is not None
    assert "is not verified" in (run.state.message or "")
    (user,) = [u for u in await lab.ok("GET", "/auth/users/") if u["email"] == body["email"]]
    (profile, *_) = await lab.ok("GET", "/admin/v2/profile/")
    for grant, told in (
        ({"is_verified": True}, "has no profile"),
        ({"profile_id": profile["id"]}, f"Project {lab.project_id} not found."),
    ):
        await lab.ok("PATCH", f"/auth/users/{user['id']}/", json=grant)
        run = await ended(
            prefect,
            await begin(workflow, dataset, user=body["email"], project=str(lab.project_id)),
        )
        assert run.state is not None
        assert told in (run.state.message or "")
    async with logged_in(stack, body["email"], body["password"]) as client:
        answer = await client.get(f"/api/v2/project/{lab.project_id}/")
    assert answer.json() == {"detail": "Project not found"}  # as clients expect it


async def test_only_images_that_are_not_done_are_run_by_each_task(
    lab: Lab, prefect: PrefectClient, begin: Begin
) -> None:
    dataset = await lab.dataset("A", "B")
    args = {"args_parallel": {"fail_on": ["B"]}}
    workflow = await lab.workflow(("Process", args), "Combine")
    assert (await lab.run(workflow, dataset))["status"] == "failed"
    task = workflow["task_list"][0]
    url = f"{lab.base}/workflow/{workflow['id']}/wftask/{task['id']}/"
    await lab.ok("PATCH", url, json={"args_parallel": {}})
    run = await ended(prefect, await begin(workflow, dataset, images="not done", last_task=0))
    job = await job_of(lab, run)
    assert job["status"] == "done", job["log"]
    _, units = await lab.history(workflow, dataset)
    assert [Path(unit["zarr_urls"][0]).name for unit in units] == ["B"]
    run = await ended(prefect, await begin(workflow, dataset, images="not done", last_task=0))
    assert run.state is not None
    assert "nothing to do" in (run.state.message or "")
    assert await jobs_of(lab, run) == []


async def test_a_failed_job_that_is_retried_goes_on_with_what_is_not_done(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    lab = journal_lab
    dataset = await lab.dataset("A", "B", "C")
    args = {**journal.args, "fail_first": ["B"]}
    workflow = await lab.workflow(
        "Process", ("Journal process", {"args_parallel": args}), "Combine"
    )
    job = await lab.run(workflow, dataset)
    assert job["status"] == "failed", job["log"]
    assert [Path(url).name for _, url in sorted(journal.ended())] == ["A", "C"]
    await retry(prefect, job)
    await eventually(lambda: lab.job(job), lambda now: now["status"] == "submitted")
    again = await lab.ended(job)
    assert again["status"] == "done", again["log"]
    story = job["log"].partition("\n\n")[2]
    assert again["log"].startswith(story)
    assert "0 Process: was done" in again["log"]
    assert [Path(url).name for _, url in sorted(journal.ended())] == ["A", "B", "C"]
    assert list(await lab.images(dataset)) == ["A"]  # what Combine left


async def test_a_retry_while_another_job_has_the_dataset_is_refused(
    lab: Lab, prefect: PrefectClient
) -> None:
    dataset = await lab.dataset("A")
    failing = await lab.workflow(("Process", {"args_parallel": {"fail_on": ["A"]}}))
    job = await lab.run(failing, dataset)
    slow = await lab.workflow(("Process", {"args_parallel": {"seconds": 60}}))
    other = await lab.submit(slow, dataset)
    await retry(prefect, job)

    async def message() -> str:
        state = (await prefect.read_flow_run(UUID(job["flow_run_id"]))).state
        return (state and state.is_failed() and state.message) or ""

    told = await eventually(message, lambda now: "has a job that has not ended" in now)
    assert str(dataset["id"]) in told
    assert (await lab.job(job))["status"] == "failed"
    await lab.ok("GET", f"{lab.base}/job/{other['id']}/stop/")
    await lab.ended(other)


async def test_a_stopped_job_can_be_retried(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    dataset = await journal_lab.dataset("A", "B", "C", "D")
    args = {**journal.args, "seconds": 2}
    job = await journal_lab.submit(
        await journal_lab.workflow(("Journal process", {"args_parallel": args})), dataset
    )
    await journal.reaches(1)
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    stopped = await journal_lab.ended(job)
    assert "Job stopped" in stopped["log"]
    await retry(prefect, job)
    await eventually(lambda: journal_lab.job(job), lambda now: now["status"] == "submitted")
    assert (await journal_lab.ended(job))["status"] == "done"
    assert sorted(Path(url).name for _, url in journal.ended()) == ["A", "B", "C", "D"]


def test_prefect_is_given_no_integers_that_it_cannot_list() -> None:
    filters = {"n": [10**25, 10**25 + 1, 2**63 - 1, -(2**63), 1.5], "well": ["A", "B"]}
    request = JobRequest(
        user="me@example.org", project="1", workflow="2", dataset="3", attribute_filters=filters
    )
    parameters = request.as_parameters()
    assert parameters["attribute_filters"] == {
        "n": [1e25, 2**63 - 1, -(2**63), 1.5],
        "well": ["A", "B"],
    }
    JobRequest(**parameters)  # as the flow takes them
