"""Which job a flow run executes."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job.opening import claim
from flows.job.run import JobUnavailableError
from flows.records.jobs import give_flow_run
from fractal_models.database import saved_id
from fractal_models.tables import JobV2

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def job(sessions: Sessions) -> AsyncIterator[JobV2]:
    """A job that names no flow run."""
    job = JobV2(
        user_email="me@example.org",
        fractal_server_version="2",
        first_task_index=0,
        last_task_index=0,
    )
    async with sessions() as session:
        session.add(job)
        await session.commit()
        yield job
        await session.delete(job)
        await session.commit()


def flow_run_for(job_id: int | None) -> FlowRun:
    key = None if job_id is None else f"job-{job_id}-now-0"
    return FlowRun(id=uuid4(), flow_id=uuid4(), idempotency_key=key)


async def name(sessions: Sessions, job: JobV2, flow_run: FlowRun) -> None:
    """Write the flow run of a job down, as who has made it does."""
    async with sessions() as session:
        (await session.get_one(JobV2, job.id)).flow_run_id = flow_run.id
        await session.commit()


async def test_a_flow_run_takes_the_job_for_which_it_was_made(
    sessions: Sessions, job: JobV2
) -> None:
    flow_run = flow_run_for(saved_id(job))
    for _ in range(2):
        async with sessions() as session:
            claimed = await claim(session, flow_run)
        assert claimed is not None
        assert (claimed.id, claimed.flow_run_id) == (job.id, flow_run.id)


async def test_a_job_is_its_own_though_it_is_named_at_this_moment(
    sessions: Sessions, job: JobV2
) -> None:
    flow_run = flow_run_for(saved_id(job))

    class Meanwhile(AsyncSession):
        async def exec(self, *args: Any, **options: Any) -> Any:
            found = await super().exec(*args, **options)
            await name(sessions, job, flow_run)
            return found

    async with Meanwhile(sessions.kw["bind"], expire_on_commit=False) as session:
        claimed = await claim(session, flow_run)
    assert claimed is not None
    assert claimed.id == job.id


async def test_a_job_of_another_flow_run_is_not_taken(sessions: Sessions, job: JobV2) -> None:
    another = flow_run_for(saved_id(job))
    await name(sessions, job, another)
    async with sessions() as session:
        with pytest.raises(JobUnavailableError, match=str(another.id)):
            await claim(session, flow_run_for(saved_id(job)))


async def test_a_flow_run_without_a_job_makes_one_and_finds_it_again(
    sessions: Sessions, job: JobV2
) -> None:
    own = flow_run_for(None)
    async with sessions() as session:
        assert await claim(session, own) is None
    await name(sessions, job, own)
    async with sessions() as session:
        claimed = await claim(session, own)
    assert claimed is not None
    assert claimed.id == job.id


async def test_a_job_that_there_is_not_is_named(sessions: Sessions) -> None:
    async with sessions() as session:
        with pytest.raises(JobUnavailableError, match="no job 4711"):
            await claim(session, flow_run_for(4711))


async def test_a_job_that_was_stopped_before_it_had_a_flow_run_gets_none(
    sessions: Sessions, job: JobV2
) -> None:
    flow_run = flow_run_for(saved_id(job))
    async with sessions() as session:
        (await session.get_one(JobV2, job.id)).status = "failed"
        await session.commit()
        assert not await give_flow_run(session, saved_id(job), flow_run.id)
        with pytest.raises(JobUnavailableError, match="was stopped before it had a flow run"):
            await claim(session, flow_run)
