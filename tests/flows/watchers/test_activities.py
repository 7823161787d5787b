"""Which activities are taken for interrupted, and which of these go on or are undone.

They are in a database that no worker looks at; only Prefect is the stack's.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.states import Cancelling, Completed, Crashed, Pending, Running, Scheduled, State
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.process.lock import lock_activity
from flows.watchers.activities import InterruptedActivities
from fractal_models.database import saved_id
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2, UserOAuth

Sessions = async_sessionmaker[AsyncSession]
LONG = 3600.0
MAX_RESTARTS = 2


@flow
def collection() -> None:
    """What Prefect needs for a flow run: nobody executes it."""


@dataclass
class Collection:
    """A collection that has not ended, and its flow run."""

    sessions: Sessions
    prefect: PrefectClient
    resource_name: str
    activity: TaskGroupActivityV2
    folder: Path

    def looker(self, **seconds: float) -> InterruptedActivities:
        return InterruptedActivities(
            self.sessions,
            Engine(self.prefect),
            self.resource_name,
            max_restarts=MAX_RESTARTS,
            **seconds,
        )

    async def status(self) -> str:
        """`failed` if it is undone: then nothing of it must be left, and else everything."""
        async with self.sessions() as session:
            activity = await session.get_one(TaskGroupActivityV2, self.activity.id)
            group = await session.get(TaskGroupV2, self.activity.taskgroupv2_id)
        undone = activity.status == "failed"
        assert (self.folder.exists(), group is not None) == (not undone, not undone)
        return activity.status

    async def log(self) -> str | None:
        async with self.sessions() as session:
            return (await session.get_one(TaskGroupActivityV2, self.activity.id)).log

    async def becomes(self, state: State[Any]) -> None:
        assert self.activity.flow_run_id is not None
        await self.prefect.set_flow_run_state(self.activity.flow_run_id, state, force=True)

    async def state(self) -> State[Any] | None:
        assert self.activity.flow_run_id is not None
        return (await self.prefect.read_flow_run(self.activity.flow_run_id)).state


@pytest.fixture
async def collecting(sessions: Sessions, prefect: PrefectClient, tmp_path: Path) -> Collection:
    """A collection whose process is being started."""
    flow_run = await prefect.create_flow_run(collection, state=Pending())
    folder = tmp_path / "package" / "1.0"
    folder.mkdir(parents=True)
    async with sessions() as session:
        user = UserOAuth(email=f"{uuid4()}@example.org", hashed_password="of nobody")
        session.add(user)
        await session.flush()
        user_id = saved_id(user)
        resource = Resource(
            type="local",
            name=f"without a worker {uuid4()}",
            jobs_local_dir="/j",
            jobs_poll_interval=5,
            tasks_local_dir="/t",
        )
        session.add(resource)
        await session.flush()
        group = TaskGroupV2(
            user_id=user_id,
            resource_id=saved_id(resource),
            origin="pypi",
            pkg_name="package",
            path=str(folder),
            active=False,
        )
        session.add(group)
        await session.flush()
        activity = TaskGroupActivityV2(
            user_id=user_id,
            taskgroupv2_id=group.id,
            pkg_name="package",
            version="1.0",
            status="pending",
            action="collect",
            flow_run_id=flow_run.id,
        )
        session.add(activity)
        await session.commit()
    return Collection(sessions, prefect, resource.name, activity, folder)


async def test_a_process_that_is_long_in_starting_is_waited_for(collecting: Collection) -> None:
    looker = collecting.looker(seconds_to_act=0.0)
    for _ in range(2):
        await looker.look()
        assert await collecting.status() == "pending"


async def test_the_wait_begins_anew_with_every_state_of_the_flow_run(
    collecting: Collection,
) -> None:
    looker = collecting.looker(seconds_to_start=LONG, seconds_to_act=1.0)
    await looker.look()
    await asyncio.sleep(1.0)  # it is idle for that long, but not Running
    await collecting.becomes(Running())
    await looker.look()
    assert await collecting.log() is None
    await asyncio.sleep(1.0)
    await looker.look()
    assert await collecting.log() is not None


@pytest.mark.parametrize("state", [Pending(), Running(), Crashed()])
async def test_what_is_idle_for_too_long_goes_on_with_what_there_is(
    collecting: Collection, state: State[Any]
) -> None:
    await collecting.becomes(state)
    for _ in range(2):  # the second one leaves it to the worker
        await collecting.looker(seconds_to_start=0.0, seconds_to_act=0.0).look()
        assert await collecting.status() == "pending"
        assert str(await collecting.log()).count("another one does it") == 1
        now = await collecting.state()
        assert now is not None
        assert now.is_scheduled()


@pytest.mark.parametrize("state", [Cancelling(), Completed()])
async def test_what_was_told_to_stop_or_has_ended_is_undone_and_its_flow_run_ended(
    collecting: Collection, state: State[Any]
) -> None:
    await collecting.becomes(state)
    await collecting.looker(seconds_to_act=0.0).look()
    assert await collecting.status() == "failed"
    ended = await collecting.state()
    assert ended is not None
    assert ended.type == (state.type if state.is_final() else Crashed().type)


async def test_what_dies_again_and_again_is_undone(collecting: Collection) -> None:
    for _ in range(MAX_RESTARTS):
        await collecting.becomes(Running())
        await collecting.looker(seconds_to_act=0.0).look()
        assert await collecting.status() == "pending"
    await collecting.becomes(Running())
    await collecting.looker(seconds_to_act=0.0).look()
    assert await collecting.status() == "failed"
    assert "another one does it" in str(await collecting.log())


async def test_what_nobody_has_begun_is_left_to_the_next_worker(collecting: Collection) -> None:
    await collecting.becomes(Scheduled())
    await collecting.looker(seconds_to_start=0.0, seconds_to_act=0.0).look()
    assert await collecting.status() == "pending"


async def test_what_is_executed_is_not_touched(collecting: Collection, database: URL) -> None:
    await lock_activity(database, saved_id(collecting.activity), lambda _: None)
    await collecting.becomes(Running())
    await collecting.looker(seconds_to_start=0.0, seconds_to_act=0.0).look()
    assert await collecting.status() == "pending"
    state = await collecting.state()
    assert state is not None
    assert state.is_running()


async def test_a_process_that_writes_at_this_moment_is_neither_waited_for_nor_undone(
    collecting: Collection,
) -> None:
    async with collecting.sessions() as session, asyncio.timeout(10):
        row = await session.get_one(
            TaskGroupActivityV2, collecting.activity.id, with_for_update=True
        )
        await collecting.looker(seconds_to_start=0.0, seconds_to_act=0.0).look()
        row.status = "ongoing"
        await session.commit()
    assert await collecting.status() == "ongoing"


async def test_what_never_got_a_flow_run_is_undone(collecting: Collection) -> None:
    async with collecting.sessions() as session:
        row = await session.get_one(TaskGroupActivityV2, collecting.activity.id)
        row.flow_run_id = None
        await session.commit()
    await collecting.looker(seconds_to_act=0.0).look()
    assert await collecting.status() == "pending"
    await collecting.looker(seconds_to_start=0.0).look()
    assert await collecting.status() == "failed"


@pytest.mark.parametrize(
    ("action", "environment_stays", "told"),
    [
        ("deactivate", True, "Deactivation failed."),
        ("reactivate", False, "Reactivation failed."),
        ("reset", False, "Reset failed."),
        ("delete", True, "Deletion failed."),
    ],
)
async def test_undoing_leaves_a_group_that_was_collected(
    collecting: Collection, action: str, environment_stays: bool, told: str
) -> None:
    venv = collecting.folder / "venv"
    venv.mkdir()
    (collecting.folder / "package.whl").touch()
    async with collecting.sessions() as session:
        row = await session.get_one(TaskGroupActivityV2, collecting.activity.id)
        group = await session.get_one(TaskGroupV2, row.taskgroupv2_id)
        row.action, group.venv_path = action, str(venv)
        await session.commit()
    await collecting.becomes(Cancelling())
    await collecting.looker(seconds_to_act=0.0).look()
    async with collecting.sessions() as session:
        row = await session.get_one(TaskGroupActivityV2, collecting.activity.id)
        group = await session.get_one(TaskGroupV2, row.taskgroupv2_id)
    assert (row.status, group.active) == ("failed", False)
    assert told in str(row.log)
    assert venv.exists() == environment_stays
    assert (collecting.folder / "package.whl").exists()
