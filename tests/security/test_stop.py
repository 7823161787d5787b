"""A stop ends a job, whatever the job's process does."""

import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job_lock import LockedError, free_job, holding_job, lock_job, locked_jobs
from tests.journal import process_of, runner_of
from tests.lab import Lab, eventually

JOB = 4711


@pytest.fixture
async def suspended(prefect: PrefectClient) -> AsyncIterator[set[int]]:
    """The ids of the processes in which flow runs hang, all of which are ended at the end."""
    found: set[int] = set()
    yield found
    for pid in found:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()


async def test_a_job_whose_processes_hang_is_stopped(
    lab: Lab, prefect: PrefectClient, suspended: set[int]
) -> None:
    """Not one of them reacts: neither the one that began the job, nor one that is to stop it."""
    workflow = await lab.workflow(("Process", {"args_parallel": {"seconds": 600.0}}))
    dataset = await lab.dataset("A", "B")
    job = await lab.submit(workflow, dataset)
    runner = await runner_of(job)

    async def hang() -> None:
        while True:
            process = await process_of(prefect, job)
            if process.pid not in suspended:
                suspended.add(process.pid)
                process.suspend()
            await asyncio.sleep(0.05)

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


async def test_a_job_is_freed_from_a_process_that_holds_it(
    database: URL, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Which learns of it, should it ever react."""
    lost: list[str] = []
    await lock_job(database, JOB, lost.append)
    async with sessions() as session:
        with pytest.raises(LockedError):
            async with holding_job(database, JOB):
                pass
        assert await free_job(session, JOB)

        async def locked() -> set[int]:
            return await locked_jobs(session)

        await eventually(locked, lambda now: JOB not in now)
        assert not await free_job(session, JOB)
        async with holding_job(database, JOB):
            assert await locked_jobs(session) == {JOB}
    assert len(lost) >= 1
