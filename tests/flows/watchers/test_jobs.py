"""Submitted jobs get a flow run, and somebody who executes it."""

import math
from datetime import timedelta

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
    State,
    Suspended,
)
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from flows.engine.client import open_engine
from flows.submission import create_job
from flows.watchers.jobs import Verdict, judge
from fractal_models.database import saved_id
from fractal_models.schemas.job import JobCreate
from fractal_models.settings import Settings
from fractal_models.tables import (
    DatasetV2,
    JobV2,
    ProjectV2,
    Resource,
    UserOAuth,
    WorkflowV2,
)
from tests.lab import Lab

Sessions = async_sessionmaker[AsyncSession]


@pytest.mark.parametrize(
    ("state", "at_first", "at_last"),
    [
        (Scheduled(), Verdict.WAIT, Verdict.WAIT),
        (AwaitingRetry(), Verdict.WAIT, Verdict.WAIT),
        (Suspended(), Verdict.WAIT, Verdict.WAIT),
        (Pending(), Verdict.WAIT, Verdict.RESTART),
        (Running(), Verdict.WAIT, Verdict.RESTART),
        (Crashed(), Verdict.RESTART, Verdict.RESTART),
        (Cancelling(), Verdict.WAIT, Verdict.STOP),
        (Cancelled(), Verdict.STOP, Verdict.STOP),
        (Completed(), Verdict.CONCLUDE_DONE, Verdict.CONCLUDE_DONE),
        (Failed(), Verdict.CONCLUDE_FAILED, Verdict.CONCLUDE_FAILED),
        (None, Verdict.RESTART, Verdict.RESTART),
    ],
)
def test_what_is_done_about_a_job_that_nobody_executes(
    state: State | None, at_first: Verdict, at_last: Verdict
) -> None:
    assert (judge(state, 0.0), judge(state, math.inf)) == (at_first, at_last)


async def _create_job(lab: Lab, stack: Stack, sessions: Sessions) -> JobV2:
    """A job as the API writes it, a minute ago, before it asks Prefect for a flow run."""
    dataset = await lab.dataset("A")
    workflow = await lab.workflow("Process")
    async with sessions() as session:
        user = await session.exec(
            select(UserOAuth).where(UserOAuth.email == stack.initialised.admin_email)
        )
        job = await create_job(
            session,
            user=user.unique().one(),
            project=await session.get_one(ProjectV2, lab.project_id),
            workflow=await session.get_one(WorkflowV2, workflow["id"]),
            dataset=await session.get_one(DatasetV2, dataset["id"]),
            request=JobCreate(),
        )
        job.start_timestamp -= timedelta(minutes=1)
        await session.commit()
        return job


async def test_a_job_whose_flow_run_was_never_made_gets_one(
    lab: Lab, stack: Stack, fractal: Sessions
) -> None:
    job = await _create_job(lab, stack, fractal)
    ended = await lab.ended({"id": saved_id(job)})
    assert ended["status"] == "done", ended["log"]


async def test_a_flow_run_that_was_made_but_not_written_down_is_the_jobs(
    lab: Lab, stack: Stack, fractal: Sessions, prefect: PrefectClient
) -> None:
    job = await _create_job(lab, stack, fractal)
    settings = Settings(
        database_url=stack.environment["FRACTAL_DATABASE_URL"],
        prefect_api_url=stack.environment["PREFECT_API_URL"],
        prefect_auth_string=stack.prefect_auth,
    )
    resource = Resource(name="local", work_pool="local")
    async with open_engine(settings) as engine:
        made = await engine.submit_job(job, resource)
    ended = await lab.ended({"id": saved_id(job)})
    assert (ended["status"], ended["flow_run_id"]) == ("done", str(made))
    flow_runs = await prefect.read_flow_runs(
        flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=f"job {job.id} ")),
        sort=FlowRunSort.ID_DESC,
        limit=10,
    )
    assert [flow_run.id for flow_run in flow_runs] == [made]
