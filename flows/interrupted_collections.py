"""Undoes collections of task packages that do not come to their end: nothing of them stays."""

import asyncio
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Crashed
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine import Engine
from flows.job_lock import locked_activities
from flows.last_words import printable
from flows.stillness import Stillness
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

OPEN = ("pending", "ongoing")

# So long, at most, the start of a process takes on a busy machine; and so long a process that
# has begun takes to lock its activity, or one that has ended, to undo what it did itself.
_SECONDS_TO_START, _SECONDS_TO_ACT = 60.0, 10.0
_INTERRUPTED = "The process that did it is gone: collect the package again."


@dataclass(frozen=True)
class _Open:
    """What is looked at, of a collection that has not ended."""

    id: int
    pkg_name: str
    flow_run_id: UUID


class InterruptedCollections:
    """Those of one resource that were begun, and that nobody executes any more."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        resource_name: str,
        *,
        seconds_to_start: float = _SECONDS_TO_START,
        seconds_to_act: float = _SECONDS_TO_ACT,
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._resource_name = resource_name
        self._seconds_to_start = seconds_to_start
        self._seconds_to_act = seconds_to_act
        self._stillness: Stillness[_Open] = Stillness()

    async def look(self) -> None:
        """Look once at all collections, and undo those that are interrupted.

        Raises:
            EngineUnavailableError, SQLAlchemyError, OSError: Prefect or the database is away.
        """
        async with self._sessions() as session:
            collections = await _open_collections(session, self._resource_name)
            locked = await locked_activities(session)
        idle = [found for found in collections if found.id not in locked]
        flow_runs = await self._engine.flow_runs([found.flow_run_id for found in idle])
        states = {
            found: run.state if (run := flow_runs.get(found.flow_run_id)) is not None else None
            for found in idle
        }
        still = self._stillness.seconds(
            {found: state.id if state is not None else None for found, state in states.items()}
        )
        for found, state in states.items():
            if self._is_over(state, still[found]):
                flow_run = flow_runs.get(found.flow_run_id)
                try:
                    await self._undo(found, flow_run)
                except PrefectHTTPStatusError as error:  # of this collection, not of Prefect
                    logger.warning("Collection of %s, not undone: %s", found.pkg_name, error)

    def _is_over(self, state: State[Any] | None, seconds: float) -> bool:
        """Whether nobody will execute a collection that is idle for so long."""
        if state is not None and (state.is_scheduled() or state.is_paused()):
            return False
        starts = state is not None and state.is_pending()
        return seconds >= (self._seconds_to_start if starts else self._seconds_to_act)

    async def _undo(self, found: _Open, flow_run: FlowRun | None) -> None:
        """End its flow run, then undo it: if this is interrupted, the next look goes on with it."""
        if flow_run is not None and flow_run.state is not None and not flow_run.state.is_final():
            await self._engine.end(found.flow_run_id, Crashed(message=_INTERRUPTED))
        async with self._sessions() as session:
            if await undo(session, found.id, f"Collection failed. {_INTERRUPTED}", idle=True):
                logger.warning("Collection of %s: %s", found.pkg_name, _INTERRUPTED)


async def undo(session: AsyncSession, activity_id: int, log: str, *, idle: bool = False) -> bool:
    """Let a collection that has not ended end as failed, and leave nothing of it; commit.

    False if there is nothing to undo; with `idle`, also if somebody executes it after all.
    """
    alone = {"skip_locked": idle}  # a row that another holds is not that of an idle collection
    activity = await session.get(TaskGroupActivityV2, activity_id, with_for_update=alone)
    if activity is None or activity.status not in OPEN:
        return False
    if idle and activity_id in await locked_activities(session):
        return False
    group = await session.get(TaskGroupV2, activity.taskgroupv2_id)
    if group is not None:
        if group.path is not None:
            await asyncio.to_thread(_remove, Path(group.path))
        activity.taskgroupv2_id = None
        await session.delete(group)
    activity.status = "failed"
    activity.timestamp_ended = now()
    activity.log = printable(log)
    await session.commit()
    return True


async def _open_collections(session: AsyncSession, resource_name: str) -> list[_Open]:
    found = await session.execute(
        select(
            TaskGroupActivityV2.id, TaskGroupActivityV2.pkg_name, TaskGroupActivityV2.flow_run_id
        )
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskGroupActivityV2.taskgroupv2_id))
        .join(Resource, col(Resource.id) == col(TaskGroupV2.resource_id))
        .where(
            col(TaskGroupActivityV2.status).in_(OPEN),
            col(TaskGroupActivityV2.flow_run_id).is_not(None),
            Resource.name == resource_name,
        )
    )
    return [_Open(*row) for row in found]


def _remove(folder: Path) -> None:
    """Remove a task group's folder, and that of its package if no other version is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.exists() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
