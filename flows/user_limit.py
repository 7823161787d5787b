"""A limit of running jobs per user, so that nobody takes a whole resource.

Prefect gives a worker as many due flow runs as the work pool has free slots. So those of a user who
has as many jobs running as one may are put off: else they would keep the slots from other users.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingConcurrencySlot, Scheduled
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine import Engine
from flows.waiting import AWAITING_SLOT, PoolLimits, due_time, takes_no_more
from fractal_models.tables import JobV2
from fractal_models.tables.columns import now

# Longer than Prefect gives flow runs to workers ahead of their time. What was put off is recalled
# when its user has a slot again; this is for when no worker is there to do that.
_PUT_OFF = timedelta(seconds=60)


@dataclass(frozen=True)
class Waiting:
    """A flow run that waits: whose, since when, and whether it is due or was put off."""

    id: UUID
    user: str
    created: datetime
    due: bool


@dataclass
class Plan:
    """The flow runs to put off, and those that were put off and may begin now."""

    put_off: dict[UUID, str] = field(default_factory=dict)  # by whose limit
    recall: list[UUID] = field(default_factory=list)


def plan(waiting: Iterable[Waiting], running: Mapping[str, int], limit: int) -> Plan:
    """Who may begin, if no user may run more than so many: of each user, those created first."""
    taken = Counter(running)
    made = Plan()
    for each in sorted(waiting, key=lambda each: each.created):
        may_begin = taken[each.user] < limit
        taken[each.user] += may_begin
        if may_begin and not each.due:
            made.recall.append(each.id)
        elif each.due and not may_begin:
            made.put_off[each.id] = each.user
    return made


class UserLimit:
    """The limit in one work pool."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], engine: Engine, pool: str, limit: int
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._pool = pool
        self._limit = limit
        self._some_are_put_off = True  # perhaps, by a worker before this one

    async def put_off(self, due: AbstractSet[UUID], starting: AbstractSet[UUID]) -> set[UUID]:
        """Put off the flow runs whose users may run no more, recall those that may begin again.

        Of the jobs that are `due`, those that must not begin.
        """
        if not due and not self._some_are_put_off:
            return set()
        flow_runs, limits = await asyncio.gather(
            self._engine.open_jobs(self._pool), self._engine.pool_limits(self._pool)
        )
        async with self._sessions() as session:
            users = await _users_of(session, flow_runs)
        waiting, running = _sort(flow_runs, limits, users, due, starting)
        made = plan(waiting, running, self._limit)
        for id_, user in made.put_off.items():
            message, later = _why(user, self._limit), now() + _PUT_OFF
            await self._engine.schedule(id_, AwaitingConcurrencySlot(State, later, message=message))
        for id_ in made.recall:
            await self._engine.schedule(id_, Scheduled(message="Its user may run it now."))
        self._some_are_put_off = bool(made.put_off) or any(map(_is_put_off, flow_runs))
        return set(made.put_off)


def _sort(
    flow_runs: Sequence[FlowRun],
    limits: PoolLimits | None,
    users: Mapping[UUID, str],
    due: AbstractSet[UUID],
    starting: AbstractSet[UUID],
) -> tuple[list[Waiting], Counter[str]]:
    """The flow runs that wait for nothing but a slot, and how many each user has running."""
    queues = limits.queues if limits else {}
    closed = {name for name, queue in queues.items() if takes_no_more(queue)}
    moment = now()
    waiting, running = [], Counter[str]()
    for run in flow_runs:
        if (user := users.get(run.id)) is None:
            continue
        if run.id in starting or not (run.state and run.state.is_scheduled()):
            running[user] += 1
        elif run.work_queue_name not in closed:
            is_due = run.id in due or due_time(run.state) <= moment
            if is_due or _is_put_off(run):
                waiting.append(Waiting(run.id, user, run.created or moment, is_due))
    return waiting, running


async def _users_of(session: AsyncSession, flow_runs: Sequence[FlowRun]) -> dict[UUID, str]:
    """Whose jobs flow runs are: as the database has it, else as their parameters say."""
    users = {run.id: str(run.parameters["user"]) for run in flow_runs if "user" in run.parameters}
    known = await session.execute(
        select(JobV2.flow_run_id, JobV2.user_email).where(
            col(JobV2.flow_run_id).in_([run.id for run in flow_runs])
        )
    )
    return users | {flow_run_id: user for flow_run_id, user in known if flow_run_id is not None}


def _is_put_off(flow_run: FlowRun) -> bool:
    """Whether it was put off here: Prefect leaves no message where it does that itself."""
    state = flow_run.state
    return state is not None and state.name == AWAITING_SLOT and state.message is not None


def _why(user: str, limit: int) -> str:
    jobs = "1 job" if limit == 1 else f"{limit} jobs"
    return f"{user} runs {jobs} on this resource, as many as one user may."
