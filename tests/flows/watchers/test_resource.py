"""Prefect knows a resource as it is, also if it did not answer when that was changed."""

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.watchers import resource
from flows.watchers.resource import ResourceDeletedError, ResourceKeeper
from fractal_models.tables import Resource


class EngineOfScriptedPools(Engine):
    """A Prefect that has work pools, or has lost them."""

    def __init__(self) -> None:
        self.has_pools = True

    async def has_pool(self, pool: str) -> bool:
        return self.has_pools


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Prefect is told, in place of being told."""
    told: list[str] = []

    async def publish(engine: Engine, resource: Resource) -> None:
        told.append(f"publish {resource.name}")

    async def withdraw(engine: Engine, pool: str) -> None:
        told.append(f"withdraw {pool}")

    monkeypatch.setattr(resource, "publish_resource", publish)
    monkeypatch.setattr(resource, "withdraw_resource", withdraw)
    return told


async def test_a_resource_is_published_when_it_changes_or_was_lost_until_it_is_deleted(
    sessions: async_sessionmaker[AsyncSession], told: list[str]
) -> None:
    made = Resource(
        type="local",
        name="lab",
        jobs_local_dir="/jobs",
        jobs_poll_interval=5,
        tasks_local_dir="/tasks",
    )
    engine = EngineOfScriptedPools()
    async with sessions() as session:
        session.add(made)
        await session.commit()
        keeper = ResourceKeeper(sessions, engine, made)
        await keeper.look()
        await keeper.look()
        assert told == ["publish lab"]

        made.name = "renamed"
        await session.commit()
        await keeper.look()
        made.jobs_runner_config = {"parallel_tasks_per_job": 3}
        await session.commit()
        await keeper.look()
        engine.has_pools = False
        await keeper.look()
        assert told[1:] == ["publish renamed"] * 3

        await session.delete(made)
        await session.commit()
    with pytest.raises(ResourceDeletedError, match="lab"):
        await keeper.look()
    assert told[4:] == ["withdraw lab"]
