"""A job's process may die between any two writes: what follows is as if it had not."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.states import AwaitingRetry
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from fractal_models.images import STATUS_ATTRIBUTE
from tests.flows.job.crash import Crasher
from tests.flows.job.crash import crasher as open_crasher
from tests.journal import Journal, require_consistent
from tests.lab import Lab

POOL = "local"
NAMES = ["image-0", "image-1", "image-2", "image-3"]

POINTS = [
    "before flows.process.lock:connect",
    "before flows.records.runs:open_run",
    "after flows.records.runs:open_run",
    "before flows.records.units:create_units",
    "after flows.records.units:create_units",
    "before flows.launchers.local:write_batch",
    "after flows.launchers.local:write_batch",
    "after flows.launchers.local:_Runner.start",
    "before flows.records.units:record_units",
    "after flows.records.units:record_units",
    "before flows.records.units:begin_attempt",
    "after flows.records.units:begin_attempt",
    "before flows.job.workflow_task_run:merge_images",
    "before flows.records.runs:close_run",
    "after flows.records.runs:close_run",
    "after flows.job.workflow_task:_run",
]
# The flow run is Completed in Prefect by then.
POINTS_AFTER_THE_FLOW = ["before flows.job.hooks:conclude_job", "before flows.records.jobs:end_job"]


@pytest.fixture(scope="module")
def crasher(stack: Stack) -> Iterator[Crasher]:
    with open_crasher(stack.environment) as crasher:
        yield crasher


@pytest.fixture
async def paused(prefect: PrefectClient, journal_lab: Lab) -> AsyncIterator[None]:
    """Until the test resumes it, the pool's worker starts no flow run."""
    await prefect.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    yield
    await _resume(prefect)


async def _resume(prefect: PrefectClient) -> None:
    await prefect.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))


async def _crash(lab: Lab, journal: Journal, crasher: Crasher, point: str) -> dict[str, Any]:
    """A job of two workflow tasks, one with a unit that fails first, whose process has died."""
    args = {**journal.args, "seconds": 0.05}
    retried = {
        "args_parallel": {**args, "fail_first": NAMES[:1], "spoil_first": NAMES[1:2]},
        "meta_parallel": {"retry": {"max": 1}},
    }
    workflow = await lab.workflow(
        ("Journal process", retried),
        ("Journal copy", {"args_non_parallel": args, "args_parallel": args}),
    )
    job = await lab.submit(workflow, await lab.dataset(*NAMES))
    exit_code = await asyncio.to_thread(crasher.execute, job["flow_run_id"], point)
    assert exit_code == -signal.SIGKILL, "the point was not reached"
    return job


@pytest.mark.usefixtures("paused")
@pytest.mark.parametrize("point", POINTS)
async def test_a_job_goes_on_from_any_point(
    journal_lab: Lab,
    journal: Journal,
    crasher: Crasher,
    prefect: PrefectClient,
    fractal: async_sessionmaker[AsyncSession],
    point: str,
) -> None:
    job = await _crash(journal_lab, journal, crasher, point)
    # What the reconciler does, without its patience.
    await prefect.set_flow_run_state(job["flow_run_id"], AwaitingRetry(), force=True)
    await _resume(prefect)
    await journal_lab.ended(job)
    await require_consistent(fractal, job, journal)


@pytest.mark.usefixtures("paused")
async def test_a_filter_by_status_means_the_same_after_a_crash(
    journal_lab: Lab, journal: Journal, crasher: Crasher, prefect: PrefectClient
) -> None:
    args = {**journal.args, "fail_first": NAMES[:1]}
    workflow = await journal_lab.workflow(("Journal process", {"args_parallel": args}))
    dataset = await journal_lab.dataset(*NAMES)
    await _resume(prefect)
    assert (await journal_lab.run(workflow, dataset))["status"] == "failed"
    await prefect.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    job = await journal_lab.submit(
        workflow, dataset, attribute_filters={STATUS_ATTRIBUTE: ["failed"]}
    )
    point = "after flows.records.runs:open_run"
    exit_code = await asyncio.to_thread(crasher.execute, job["flow_run_id"], point)
    assert exit_code == -signal.SIGKILL
    await _resume(prefect)
    assert (await journal_lab.ended(job))["status"] == "done"
    assert len(journal.began()) == len(NAMES) + 1


@pytest.mark.usefixtures("paused")
async def test_what_units_did_since_a_crash_counts_when_the_job_is_stopped(
    journal_lab: Lab, journal: Journal, crasher: Crasher, prefect: PrefectClient
) -> None:
    workflow = await journal_lab.workflow(("Journal process", {"args_parallel": journal.args}))
    dataset = await journal_lab.dataset(*NAMES)
    job = await journal_lab.submit(workflow, dataset)
    point = "after flows.launchers.local:_Runner.start"
    exit_code = await asyncio.to_thread(crasher.execute, job["flow_run_id"], point)
    assert exit_code == -signal.SIGKILL
    await journal.reaches(len(NAMES))
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    await _resume(prefect)
    await journal_lab.ended(job)
    run, _ = await journal_lab.history(workflow, dataset)
    assert run["num_done_units"] == len(NAMES)
    images = await journal_lab.images(dataset)
    assert all("processed" in image["attributes"] for image in images.values())


@pytest.mark.usefixtures("paused")
@pytest.mark.parametrize("point", POINTS_AFTER_THE_FLOW)
async def test_a_job_whose_flow_has_ended_gets_its_end(
    journal_lab: Lab,
    journal: Journal,
    crasher: Crasher,
    fractal: async_sessionmaker[AsyncSession],
    point: str,
) -> None:
    job = await _crash(journal_lab, journal, crasher, point)
    ended = await journal_lab.ended(job)
    assert "brought to its end: its flow run is Completed" in ended["log"]
    await require_consistent(fractal, job, journal)
