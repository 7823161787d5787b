"""The Prefect state hooks of jobs and workflow tasks: they write the Fractal schema.

Prefect continues after an exception in a hook. So the hooks of a workflow task mark it when they
have written, and the flow checks the mark. A job whose last hook failed stays `submitted`.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun, State, TaskRun

from flows.job.end import conclude_job
from flows.job.workflow_task_run import WorkflowTaskRun
from flows.records import jobs, runs
from flows.records.events import Outcome
from fractal_models.database import open_database
from fractal_models.settings import get_settings

logger = logging.getLogger(__name__)


async def job_done(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """All workflow tasks are done."""
    await _end_job(flow_run, "done")


async def job_failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The flow raised an exception."""
    await _end_job(flow_run, "failed", _exception_of(state))


async def job_stopped(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Somebody stopped the job, or cancelled its flow run."""
    await _end_job(flow_run, "stopped", state.message or "")


async def _end_job(flow_run: FlowRun, outcome: Outcome, reason: str = "") -> None:
    """Record the end of the flow run's job, then zip its folder; nobody waits for the zipping."""
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        if (job := await jobs.job_of(session, flow_run.id)) is None:
            return  # it was refused
        if outcome == "stopped":
            reason = job.stop_reason or reason
            outcome = jobs.outcome_of_stop(reason)
        await conclude_job(session, job, outcome, reason)


async def open_history_run(
    run: WorkflowTaskRun, task: Task[..., Any], task_run: TaskRun, state: State[Any]
) -> None:
    """Write the HistoryRun of a workflow task that begins."""
    if run.history_run_id is not None:
        return  # before an interruption
    with _kept(run):
        async with run.job.database() as session:
            run.history_run_id = await runs.open_run(
                session, run.job.job, run.dump, run.num_available_images
            )


async def close_history_run(
    run: WorkflowTaskRun, task: Task[..., Any], task_run: TaskRun, state: State[Any]
) -> None:
    """Record everything about the end of a workflow task, in one transaction."""
    if run.history_run_id is None:
        return
    done = state.is_completed()
    end = run.end("done" if done else "failed", "" if done else _exception_of(state))
    with _kept(run):
        async with run.job.database() as session:
            await runs.close_run(session, run.job.job, run.history_run_id, run.dump, end)
        run.recorded = True


def _exception_of(state: State[Any]) -> str:
    """The message of the exception with which a run failed, without Prefect's words."""
    message = state.message or ""
    return re.sub(r"^(Flow|Task) run encountered an exception:? ", "", message)


@contextmanager
def _kept(run: WorkflowTaskRun) -> Iterator[None]:
    """Keep an exception of this block for the flow, which never sees the exceptions of hooks."""
    try:
        yield
    except Exception as error:
        logger.exception("%s could not be recorded.", run.title)
        run.not_recorded = error
