"""Has collections and other activities go on whose process has died, or undoes them."""

import logging
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities.activity import OPEN, goes_on, take_up_again, undo
from flows.engine.client import Engine, EngineRefusedError
from flows.process.lock import locked_activities
from flows.watchers.unchanged import Unchanged
from flows.watchers.watcher import Watcher, refused
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2

logger = logging.getLogger(__name__)

# How long the start of a process takes at most on a busy machine; and how long at most a running
# process takes to lock its activity, or an ended one to undo its own work.
_SECONDS_TO_START, _SECONDS_TO_ACT = 60.0, 10.0
# The API stores the archive of a collection before it makes the flow run: see `Site.write`.
_SECONDS_TO_STORE = 660.0
_INTERRUPTED = "The process that did it is gone: try it again."


@dataclass(frozen=True)
class _Open:
    """The facts that are looked at, of an activity that has not ended."""

    id: int
    action: str
    pkg_name: str
    flow_run_id: UUID | None
    archive_path: str | None


class InterruptedActivities(Watcher):
    """The open activities of one resource that no process executes any more."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        pool: str,
        *,
        max_restarts: int,
        seconds_to_start: float = _SECONDS_TO_START,
        seconds_to_act: float = _SECONDS_TO_ACT,
        seconds_to_store: float = _SECONDS_TO_STORE,
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._pool = pool
        self._max_restarts = max_restarts
        self._seconds_to_start = seconds_to_start
        self._seconds_to_act = seconds_to_act
        self._seconds_to_store = seconds_to_store
        self._unchanged: Unchanged[_Open] = Unchanged()

    async def look(self) -> None:
        """Check all open activities once; those that were interrupted go on, or are undone."""
        async with self._sessions() as session:
            activities = await _open_activities(session, self._pool)
            locked = await locked_activities(session)
        idle = [found for found in activities if found.id not in locked]
        known = await self._engine.flow_runs(
            [each.flow_run_id for each in idle if each.flow_run_id]
        )
        flow_runs = {
            each: known.get(each.flow_run_id) if each.flow_run_id else None for each in idle
        }
        still = self._unchanged.seconds(
            {each: run.state.id if run and run.state else None for each, run in flow_runs.items()}
        )
        for found, flow_run in flow_runs.items():
            if self._is_over(found, flow_run.state if flow_run else None, still[found]):
                try:
                    await self._act(found, flow_run)
                except EngineRefusedError as error:
                    refused(_name(found), error)

    def _is_over(self, found: _Open, state: State[Any] | None, seconds: float) -> bool:
        """Whether no process will execute an activity that has been idle for this many seconds."""
        if state is not None and (state.is_scheduled() or state.is_paused()):
            return False
        # It has no flow run: the API is just making one, or died before it could.
        starts = found.flow_run_id is None or (state is not None and state.is_pending())
        if found.flow_run_id is None and found.action == "collect" and found.archive_path:
            return seconds >= self._seconds_to_store
        return seconds >= (self._seconds_to_start if starts else self._seconds_to_act)

    async def _act(self, found: _Open, flow_run: FlowRun | None) -> None:
        if flow_run is None or not goes_on(flow_run, self._max_restarts):
            await self._undo(found, flow_run)
            return
        async with self._sessions() as session:
            if await take_up_again(session, self._engine, found.id, flow_run):
                logger.warning("%s is taken up again: its process is gone.", _name(found))

    async def _undo(self, found: _Open, flow_run: FlowRun | None) -> None:
        """End the flow run, then undo the activity; if interrupted, the next look does the rest."""
        if flow_run is not None and flow_run.state is not None and not flow_run.state.is_final():
            await self._engine.end(flow_run.id, Crashed(message=_INTERRUPTED))
        async with self._sessions() as session:
            if await undo(session, found.id, _INTERRUPTED, idle=True):
                logger.warning("%s: %s", _name(found), _INTERRUPTED)


def _name(found: _Open) -> str:
    return f"Activity {found.id} ({found.action} {found.pkg_name})"


async def _open_activities(session: AsyncSession, pool: str) -> list[_Open]:
    columns: list[Any] = [
        TaskGroupActivityV2.id,
        TaskGroupActivityV2.action,
        TaskGroupActivityV2.pkg_name,
        TaskGroupActivityV2.flow_run_id,
        TaskGroupV2.archive_path,
    ]
    found = await session.execute(
        select(*columns)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskGroupActivityV2.taskgroupv2_id))
        .join(Resource, col(Resource.id) == col(TaskGroupV2.resource_id))
        .where(
            col(TaskGroupActivityV2.status).in_(OPEN),
            Resource.work_pool == pool,
        )
    )
    return [_Open(*row) for row in found]
