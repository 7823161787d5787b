"""Paused jobs end the workflow task that runs, hold no process, and go on when they are told to."""

from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.states import Suspended

from deployments.services import is_alive
from tests.journal import Journal, process_of
from tests.lab import Lab, eventually

NAMES = ["A", "B", "C", "D"]


async def two_tasks(lab: Lab, journal: Journal, seconds: float = 0.5) -> dict[str, Any]:
    """A job of two workflow tasks, the first of which is at work."""
    args = {**journal.args, "seconds": seconds}
    workflow = await lab.workflow(("Journal process", {"args_parallel": args}), "Combine")
    job = await lab.submit(workflow, await lab.dataset(*NAMES))
    await journal.begins()
    return job


async def state_name(prefect: PrefectClient, job: dict[str, Any]) -> str | None:
    return (await prefect.read_flow_run(UUID(job["flow_run_id"]))).state_name


@pytest.mark.parametrize("where", ["rest", "prefect"])
async def test_a_paused_job_ends_its_task_and_goes_on_when_continued(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, where: str
) -> None:
    lab = journal_lab
    job = await two_tasks(lab, journal)
    process = await process_of(prefect, job)
    url = f"{lab.base}/job/{job['id']}"
    if where == "rest":
        await lab.ok("POST", f"{url}/pause/")
    else:
        await prefect.set_flow_run_state(UUID(job["flow_run_id"]), Suspended())

    async def holds_process() -> bool:
        return is_alive(process)

    await eventually(holds_process, lambda held: not held)
    assert len(journal.ended()) == len(NAMES)
    now = await lab.job(job, show_tmp_logs=True)
    assert now["status"] == "submitted"
    assert "Paused before 1 Combine" in now["log"]
    assert await state_name(prefect, job) == "Suspended"

    async def ended_task_runs() -> list[str]:
        found = await prefect.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(job["flow_run_id"])]))
        )
        return [run.name for run in found if run.state and run.state.is_completed()]

    await eventually(ended_task_runs, lambda names: "0 Journal process" in names)
    if where == "rest":
        await lab.ok("POST", f"{url}/continue/")
    else:
        await prefect.resume_flow_run(UUID(job["flow_run_id"]))
    ended = await lab.ended(job)
    assert ended["status"] == "done", ended["log"]
    assert "0 Journal process: was done" in ended["log"]
    assert len(journal.began()) == len(NAMES)
    assert await eventually(lambda: state_name(prefect, job), lambda now: now == "Completed")


async def test_a_job_that_is_continued_before_its_task_has_ended_just_goes_on(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    lab = journal_lab
    job = await two_tasks(lab, journal, seconds=2)
    url = f"{lab.base}/job/{job['id']}"
    await lab.ok("POST", f"{url}/pause/")
    await lab.ok("POST", f"{url}/continue/")
    ended = await lab.ended(job)
    assert ended["status"] == "done", ended["log"]
    assert "Paused before" not in ended["log"]
    assert len(journal.began()) == len(NAMES)


async def test_a_paused_job_can_be_stopped(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    lab = journal_lab
    job = await two_tasks(lab, journal)
    process = await process_of(prefect, job)
    url = f"{lab.base}/job/{job['id']}"
    await lab.ok("POST", f"{url}/pause/")

    async def holds_process() -> bool:
        return is_alive(process)

    await eventually(holds_process, lambda held: not held)
    await lab.ok("GET", f"{url}/stop/")
    ended = await lab.ended(job)
    assert ended["status"] == "failed"
    assert "Job stopped." in ended["log"]
    assert await eventually(lambda: state_name(prefect, job), lambda now: now == "Cancelled")


async def test_a_pause_has_no_end_of_its_own(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    job = await two_tasks(journal_lab, journal)
    flow_run_id = UUID(job["flow_run_id"])
    await prefect.set_flow_run_state(flow_run_id, Suspended(timeout_seconds=300, message="Mine."))

    async def timeout() -> object:
        state = (await prefect.read_flow_run(flow_run_id)).state
        assert state is not None
        assert (state.name, state.message) == ("Suspended", "Mine.")
        return state.state_details.pause_timeout

    await eventually(timeout, lambda now: now is None)
    await prefect.resume_flow_run(flow_run_id)
    assert (await journal_lab.ended(job))["status"] == "done"


async def test_a_job_that_waits_can_be_paused_and_continued(
    lab: Lab, prefect: PrefectClient
) -> None:
    await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=True))
    try:
        job = await lab.submit(await lab.workflow("Process"), await lab.dataset("A"))
        url = f"{lab.base}/job/{job['id']}"
        await lab.ok("POST", f"{url}/pause/")
    finally:
        await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=False))
    other = await lab.run(await lab.workflow("Process"), await lab.dataset("B"))
    assert other["status"] == "done"
    assert await state_name(prefect, job) == "Suspended"
    await lab.ok("POST", f"{url}/continue/")
    assert (await lab.ended(job))["status"] == "done"


async def test_what_is_not_paused_is_not_continued_and_what_has_ended_not_paused(
    lab: Lab,
) -> None:
    job = await lab.run(await lab.workflow("Process"), await lab.dataset("A"))
    for action in ("pause", "continue"):
        answer = await lab.client.post(f"{lab.base}/job/{job['id']}/{action}/")
        assert answer.status_code == 422
        assert answer.json()["detail"] == f"Job {job['id']} has ended already (done)."
