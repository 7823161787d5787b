"""Jobs whose resource has no worker say so."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.watchers.unattended import UnattendedJobs
from fractal_models.tables import JobV2, Resource


class EngineOfScriptedWorkers(Engine):
    """A Prefect that knows of no worker of these work pools."""

    def __init__(self, left: set[str]) -> None:
        self.left = left

    async def pools_without_worker(self, pools: Sequence[str]) -> set[str]:
        return self.left & set(pools)


@pytest.mark.parametrize("has_worker", [True, False])
async def test_a_job_says_once_that_its_resource_has_no_worker(
    sessions: async_sessionmaker[AsyncSession],
    submit: Callable[..., Awaitable[httpx.Response]],
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    resource: Resource,
    has_worker: bool,
) -> None:
    made = (await submit(runnable, dataset)).json()
    engine = EngineOfScriptedWorkers(set() if has_worker else {resource.work_pool})
    for _ in range(2):
        await UnattendedJobs(sessions, engine).look()
    async with sessions() as session:
        job = await session.get_one(JobV2, made["id"])
    told = (job.log or "").count(f"Waiting: Resource '{resource.name}' has no worker that runs")
    assert told == (0 if has_worker else 1)
