"""A stop ends a job, whatever the job's process does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import open_engine
from flows.process.lock import LockedError, free_job, holding_job, lock_job, locked_jobs
from flows.watchers.jobs import Reconciler
from fractal_models.settings import Settings
from fractal_models.tables import JobV2, Resource
from tests.journal import runner_of
from tests.lab import Lab, eventually

JOB, ANOTHER_JOB = 4711, 4712


@pytest.fixture
async def suspended() -> AsyncIterator[set[int]]:
    """The ids of the processes in which flow runs hang, all of which are ended at the end."""
    found: set[int] = set()
    yield found
    for pid in found:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()


async def test_a_job_whose_processes_hang_is_stopped(lab: Lab, suspended: set[int]) -> None:
    """Not one of them reacts: neither the one that began the job, nor one that is to stop it."""
    workflow = await lab.workflow(("Process", {"args_parallel": {"seconds": 600.0}}))
    dataset = await lab.dataset("A", "B")
    job = await lab.submit(workflow, dataset)
    runner = await runner_of(job)

    async def hang() -> None:
        # Prefect tells of a process only some time after it has begun; one that is to stop a job
        # may have ended by then.
        title = f"deployments.flow_run_process {job['flow_run_id']}"
        while True:
            for process in psutil.process_iter(["cmdline"]):
                is_new = process.pid not in suspended
                if is_new and title in " ".join(process.info["cmdline"] or ()):
                    suspended.add(process.pid)
                    process.suspend()
            await asyncio.sleep(0.02)

    hanging = asyncio.create_task(hang())
    await eventually(lambda: asyncio.sleep(0, bool(suspended)), bool)
    await lab.ok("GET", f"{lab.base}/job/{job['id']}/stop/")
    ended = await lab.ended(job)
    hanging.cancel()
    print(ended["log"])
    assert ended["status"] == "failed"
    assert "Stopped through the Fractal API." in ended["log"]
    assert len(suspended) == 2
    assert "did not stop, and was killed" in ended["log"]
    assert not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE
    await lab.ok("DELETE", f"{lab.base}/dataset/{dataset['id']}/")


async def test_a_process_that_no_worker_can_kill_loses_a_job_that_is_to_stop(
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
    resource: Resource,
    settings: Settings,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """But not before it has had time to stop, and no other job."""
    job = (await submit(runnable, dataset)).json()
    lost: list[int] = []
    url = settings.async_database_url
    await lock_job(url, job["id"], lambda _: lost.append(job["id"]))
    await lock_job(url, JOB, lambda _: lost.append(JOB))
    async with sessions() as session:
        row = await session.get_one(JobV2, job["id"])
        row.flow_run_id, row.stop_reason = uuid4(), "Ann stopped it."
        await session.commit()
    brief = settings.model_copy(update={"stop_seconds": 0.2})
    async with open_engine(settings) as engine:
        reconciler = Reconciler(sessions, engine, brief, resource.work_pool)
        await reconciler.look()
        await asyncio.sleep(0.2)
        assert lost == []
        await asyncio.sleep(0.5)
        await reconciler.look()
    await eventually(lambda: asyncio.sleep(0, set(lost)), lambda lost: lost == {job["id"]})


async def test_a_job_is_freed_from_a_process_that_holds_it(
    database: URL, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Which learns of it, should it ever react."""
    lost: list[str] = []
    await lock_job(database, ANOTHER_JOB, lost.append)
    async with sessions() as session:
        with pytest.raises(LockedError):
            async with holding_job(database, ANOTHER_JOB):
                pass
        assert await free_job(session, ANOTHER_JOB)

        async def locked() -> set[int]:
            return await locked_jobs(session)

        await eventually(locked, lambda now: ANOTHER_JOB not in now)
        assert not await free_job(session, ANOTHER_JOB)
        async with holding_job(database, ANOTHER_JOB):
            assert ANOTHER_JOB in await locked_jobs(session)
    assert len(lost) >= 1
