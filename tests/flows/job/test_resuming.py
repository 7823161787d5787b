"""Jobs go on from where they were, whatever of what executes them is killed."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Scheduled, State
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.services import is_alive
from flows.process.lock import locked_jobs
from fractal_models.tables import AccountingRecord
from tests.journal import Journal, process_of, require_consistent, runner_of
from tests.lab import Lab, eventually

Sessions = async_sessionmaker[AsyncSession]
NAMES = [f"image-{number:02d}" for number in range(12)]


async def test_a_job_whose_process_is_killed_goes_on_with_its_running_units(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=0.4)
    await journal.reaches(2)
    runner = await runner_of(job)
    (await process_of(prefect, job)).kill()
    ended = await journal_lab.ended(job)
    assert "taken up again" in ended["log"]
    assert f"Job {job['id']} goes on" in ended["log"]
    await require_consistent(fractal, job, journal)
    assert len(journal.began()) == len(NAMES)  # none was begun twice
    assert not is_alive(runner)
    await _require_no_task_run_is_running(prefect, job)


async def test_a_unit_runner_that_is_killed_is_replaced(
    journal_lab: Lab, journal: Journal, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=0.4)
    await journal.reaches(2)
    (await runner_of(job)).kill()
    ended = await journal_lab.ended(job)
    assert "launched again" in ended["log"]
    await require_consistent(fractal, job, journal)


async def test_process_and_runner_may_be_killed_at_once(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=0.4)
    await journal.reaches(2)
    for process in (await process_of(prefect, job), await runner_of(job)):
        process.kill()
    await journal_lab.ended(job)
    await require_consistent(fractal, job, journal)


async def test_workflow_tasks_that_are_recorded_are_not_run_again(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    before = await _accounted(fractal)
    gate = journal.path.with_suffix(".gate")
    job = await _submit_all_types(journal_lab, journal, until=str(gate))
    for units in (9, 16):
        await journal.reaches(units)
        (await process_of(prefect, job)).kill()
    gate.touch()
    ended = await journal_lab.ended(job)
    assert "was done when the job was interrupted" in ended["log"]
    await require_consistent(fractal, job, journal)
    records, units = await _accounted(fractal)
    assert (records - before[0], units - before[1]) == (5, len(journal.ended()))


async def test_a_copy_of_a_flow_run_does_not_touch_its_job(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=2)
    await journal.begins()
    deployment = await prefect.read_deployment_by_name("run-job/local")
    first = await prefect.read_flow_run(job["flow_run_id"])
    second = await prefect.create_flow_run_from_deployment(
        deployment.id, parameters=first.parameters
    )

    async def state() -> State[Any]:
        return (await prefect.read_flow_run(second.id)).state or Scheduled()

    refused = await eventually(state, lambda now: now.is_final())
    assert refused.is_failed()
    assert "has a job that has not ended" in refused.message
    ended = await journal_lab.ended(job)
    assert "taken up again" not in ended["log"]
    assert ended["flow_run_id"] == job["flow_run_id"]
    await require_consistent(fractal, job, journal)


async def test_a_process_that_finds_the_lock_taken_leaves_its_flow_run_alone(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=0.6)
    await journal.reaches(1)
    executor = await process_of(prefect, job)
    await prefect.set_flow_run_state(job["flow_run_id"], AwaitingRetry(), force=True)

    async def second() -> bool:
        return (await process_of(prefect, job)).pid != executor.pid

    await eventually(second, bool)
    assert executor.is_running()
    await journal_lab.ended(job)
    await require_consistent(fractal, job, journal)
    assert len(journal.began()) == len(NAMES)


async def test_a_job_that_never_gets_anywhere_is_given_up_and_says_why(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=60)
    for _ in range(4):
        process = await process_of(prefect, job)
        runner = await runner_of(job)
        await _locked(fractal, job)
        process.kill()
        await eventually(lambda p=process: asyncio.to_thread(p.is_running), lambda now: not now)
    ended = await journal_lab.ended(job)
    assert ended["status"] == "failed"
    assert "Given up after 3 restarts without progress" in ended["log"]
    assert not is_alive(runner)
    run, units = await journal_lab.history(job["workflow"], job["dataset"])
    assert run["num_failed_units"] == len(units) == len(NAMES)


async def test_a_job_whose_process_is_gone_can_be_stopped(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    job = await _submit(journal_lab, journal, seconds=60)
    runner = await runner_of(job)
    process = await process_of(prefect, job)
    process.send_signal(signal.SIGSTOP)  # so that it cannot obey
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    process.kill()
    ended = await journal_lab.ended(job)
    assert ended["status"] == "failed"
    assert "stopped" in ended["log"]
    assert not is_alive(runner)


async def test_a_flow_run_that_was_deleted_is_replaced(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=0.4)
    await journal.reaches(1)
    process = await process_of(prefect, job)
    await prefect.delete_flow_run(job["flow_run_id"])
    process.kill()
    ended = await journal_lab.ended(job)
    assert ended["flow_run_id"] != job["flow_run_id"]
    assert "was deleted" in ended["log"]
    await require_consistent(fractal, job, journal)


async def test_a_job_whose_flow_run_was_deleted_can_be_stopped(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    job = await _submit(journal_lab, journal, seconds=60)
    runner = await runner_of(job)
    await prefect.delete_flow_run(job["flow_run_id"])
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    ended = await journal_lab.ended(job)
    assert ended["status"] == "failed"
    assert "Stopped through the Fractal API" in ended["log"]
    assert not is_alive(runner)


@pytest.mark.parametrize("state", [Cancelled(), Cancelling()], ids=["cancelled", "cancelling"])
async def test_a_job_is_stopped_by_the_state_of_its_flow_run(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, state: State
) -> None:
    job = await _submit(journal_lab, journal, seconds=60)
    runner = await runner_of(job)
    await prefect.set_flow_run_state(job["flow_run_id"], state, force=True)
    ended = await journal_lab.ended(job)
    assert ended["status"] == "failed"
    assert "stopped" in ended["log"]
    assert not is_alive(runner)


async def test_what_ended_before_a_stop_is_in_the_image_list(
    journal_lab: Lab, journal: Journal, gate: Path
) -> None:
    gate.touch()
    job = await _submit(journal_lab, journal, seconds=0.1, until=str(gate))
    await journal.reaches(3)
    gate.unlink()  # a unit that the stop met at its very end would be in the journal alone
    await eventually(lambda: _end_within_a_second(journal), lambda ends: not ends)
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    assert (await journal_lab.ended(job))["status"] == "failed"
    images = await journal_lab.images(job["dataset"])
    processed = {name for name, image in images.items() if "processed" in image["attributes"]}
    assert processed == {Path(url).name for _, url in journal.ended()}


async def _end_within_a_second(journal: Journal) -> int:
    """How many units end in this second."""
    before = len(journal.ended())
    await asyncio.sleep(1)
    return len(journal.ended()) - before


async def test_a_flow_run_of_a_done_job_that_is_executed_again_ends_as_completed(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    job = await _submit(journal_lab, journal, seconds=0.01)
    await journal_lab.ended(job)
    again = AwaitingRetry(message="Executed again.")
    await prefect.set_flow_run_state(job["flow_run_id"], again, force=True)

    async def final_message() -> str:
        state = (await prefect.read_flow_run(job["flow_run_id"])).state
        assert state is not None
        return f"{state.name}: {state.message}" if state.is_final() else ""

    told = await eventually(final_message, bool)
    assert told == f"Completed: Job {job['id']} has ended already, it is done."
    await require_consistent(fractal, job, journal)


async def _submit(lab: Lab, journal: Journal, **args: Any) -> dict[str, Any]:
    """A job of 12 units with these arguments; with its workflow and its dataset."""
    args = {**journal.args, **args}
    workflow = await lab.workflow(("Journal process", {"args_parallel": args}))
    dataset = await lab.dataset(*NAMES)
    job = await lab.submit(workflow, dataset)
    return {**job, "workflow": workflow, "dataset": dataset}


async def _submit_all_types(lab: Lab, journal: Journal, **of_last: Any) -> dict[str, Any]:
    """A job of workflow tasks of all types; the last one has further arguments."""
    args = {**journal.args, "seconds": 0.3}
    names = {"names": NAMES[:3]}
    more = {"names": NAMES[3:6]}
    workflow = await lab.workflow(
        ("Journal convert", {"args_non_parallel": args | names}),
        ("Journal convert in two", {"args_non_parallel": args | more, "args_parallel": args}),
        ("Journal process", {"args_parallel": args}),
        ("Journal copy", {"args_non_parallel": args, "args_parallel": args}),
        ("Journal combine", {"args_non_parallel": args | of_last}),
    )
    dataset = await lab.dataset()
    return await lab.submit(workflow, dataset)


async def _locked(sessions: Sessions, job: dict[str, Any]) -> None:
    """Return when a process executes the job."""

    async def locked() -> bool:
        async with sessions() as session:
            return job["id"] in await locked_jobs(session)

    await eventually(locked, bool)


async def _accounted(sessions: Sessions) -> tuple[int, int]:
    """The number of accounting records, and of units in them."""
    async with sessions() as session:
        found = await session.exec(
            select(func.count(), func.coalesce(func.sum(col(AccountingRecord.num_tasks)), 0))
        )
        records, units = found.one()
        return records, units


async def _require_no_task_run_is_running(prefect: PrefectClient, job: dict[str, Any]) -> None:
    async def states() -> set[StateType | None]:
        found = await prefect.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[job["flow_run_id"]])),
            sort=TaskRunSort.ID_DESC,
            limit=200,
        )
        return {task_run.state_type for task_run in found}

    await eventually(states, lambda now: now <= {StateType.COMPLETED, StateType.CRASHED})
