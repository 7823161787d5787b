"""Decides which flow runs may begin next: users take turns, within the limits of a resource.

Prefect gives a worker as many due flow runs as its work pool has free slots, the oldest first. So
all flow runs of a user who submitted a hundred would come before the next user's. Therefore flow
runs are put off here until it is their user's turn. Jobs and activities of task groups have
separate slots, so neither waits for the other. Limits, pauses and priorities that administrators
set in Prefect apply too.
"""

import asyncio
import math
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingConcurrencySlot, Scheduled
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.engine.publication import ENTRYPOINTS
from flows.engine.wait_reasons import AWAITING_SLOT, PoolLimits, due_time, full_pool, full_queue
from flows.records.waiting import others_are_open
from fractal_models.settings import Settings
from fractal_models.tables import JobV2, Resource, TaskGroupActivityV2, UserOAuth
from fractal_models.tables.columns import now

# A flow run that was put off is recalled when it is its turn, if need be by another worker.
_PUT_OFF = timedelta(hours=1)
# How many flow runs are put off in Prefect at once; the others just do not begin, and follow later.
_AT_ONCE = 50
# Look again after this time: limits may change in Prefect, and other workers may end flow runs.
_LOOK_SECONDS = 3.0

_JOBS = ("run-job",)
_ACTIVITIES = tuple(name for name in ENTRYPOINTS if name not in _JOBS)


@dataclass
class Room:
    """A limit: how many more flow runs may begin, and the reason given to those that may not."""

    free: float
    reason: str


@dataclass(frozen=True)
class Waiting:
    """A waiting flow run: its user, when it was created, and whether it is due or was put off.

    Lower values of `rank` go first, e.g. interrupted flow runs, or those in a better queue.
    """

    id: UUID
    user: str
    created: datetime
    due: bool
    rank: tuple[int, ...] = ()
    queue: str = ""


@dataclass
class Decision:
    """The flow runs to put off, with reasons; those to recall; and those that may begin."""

    put_off: dict[UUID, str] = field(default_factory=dict)
    recall: list[UUID] = field(default_factory=list)
    begin: list[UUID] = field(default_factory=list)


def plan(
    waiting: Iterable[Waiting],
    running: Mapping[str, int],
    rooms: Callable[[Waiting], Sequence[Room]],
    latest: Mapping[str, int],
) -> Decision:
    """Decide who may begin: the user with the fewest flow runs; of several, the longest waiting.

    Among the flow runs of one user, the first created begins first. `latest` numbers the users by
    their latest turns; a user without a turn yet comes first. A flow run needs room in all its
    `rooms`, and takes it.
    """
    made, taken, turns = Decision(), Counter(running), dict(latest)
    lines: dict[tuple[int, ...], dict[str, deque[Waiting]]] = defaultdict(dict)
    for each in sorted(waiting, key=lambda each: (each.created, each.id)):
        lines[each.rank].setdefault(each.user, deque()).append(each)
    for rank in sorted(lines):
        users = lines[rank]
        while users:
            user = min(
                users, key=lambda user: (taken[user], turns.get(user, -1), users[user][0].created)
            )
            each = users[user].popleft()
            if not users[user]:
                del users[user]
            full = next((room for room in rooms(each) if room.free < 1), None)
            if full is not None:
                if each.due:
                    made.put_off[each.id] = full.reason
                continue
            for room in rooms(each):
                room.free -= 1
            taken[user] += 1
            turns[user] = max(turns.values(), default=-1) + 1
            made.begin.append(each.id)
            if not each.due:
                made.recall.append(each.id)
    return made


@dataclass(frozen=True)
class Limits:
    """How many flow runs may run at once on a resource, and of one user (None: no limit)."""

    jobs: int
    activities: int
    jobs_of_user: int | None = None


def limits_of(settings: Settings, resource: Resource, cores: int | None = None) -> Limits:
    """The limits from the settings; where these say nothing, what this machine can bear.

    Units of local jobs run on this machine. Of other jobs only one process runs here, which mostly
    sleeps.
    """
    cores = cores or len(os.sched_getaffinity(0))
    jobs = max(4, cores) if resource.type == "local" else max(40, 10 * cores)
    return Limits(
        jobs=settings.max_running_jobs or jobs,
        activities=settings.max_running_activities or max(2, cores // 2),
        jobs_of_user=settings.max_running_jobs_per_user,
    )


class Turns:
    """Takes care of the turns in one work pool."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], engine: Engine, pool: str, limits: Limits
    ) -> None:
        line = partial(_Line, sessions, engine, pool)
        self._jobs = line(_JOBS, "jobs", limits.jobs, limits.jobs_of_user)
        self._activities = line(_ACTIVITIES, "activities of task groups", limits.activities)

    async def put_off(self, due: Iterable[FlowRun], begun: AbstractSet[UUID]) -> set[UUID]:
        """Put off flow runs whose turn it is not, and recall those whose turn it is.

        Returns those of the `due` flow runs that must not begin; `begun` have a process here.
        """
        activities = {each.id for each in due if "activity_id" in each.parameters}
        jobs = {each.id for each in due} - activities
        left_out = await self._jobs.put_off(jobs, begun)
        return left_out | await self._activities.put_off(activities, begun)


class _Line:
    """Flow runs of a work pool that wait for the same slots."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        pool: str,
        flows: Sequence[str],
        called: str,
        limit: int,
        limit_of_user: int | None = None,
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._pool = pool
        self._flows = flows
        self._limit = limit
        self._full = f"This resource runs at most {limit} {called} at once; users take turns."
        self._limit_of_user = limit_of_user
        self._latest: dict[str, int] = {}
        self._some_are_put_off = True  # perhaps, by a worker before this one
        self._begun: AbstractSet[UUID] = frozenset()
        self._looked = -math.inf

    async def put_off(self, due: AbstractSet[UUID], begun: AbstractSet[UUID]) -> set[UUID]:
        """See `Turns.put_off`."""
        if not due and not self._is_time_to_recall(begun):
            return set()
        if await self._is_alone(due, begun):
            return set()
        flow_runs, found = await asyncio.gather(
            self._engine.open_runs(self._pool, self._flows), self._engine.pool_limits(self._pool)
        )
        if found is None or found.pool.is_paused:
            return set()
        async with self._sessions() as session:
            users = await _users_of(session, flow_runs)
        state = _sort(flow_runs, found, users, due, begun)
        made = plan(state.waiting, state.running, self._rooms(state, found), self._latest)
        await self._tell(made)
        self._some_are_put_off = bool(made.put_off) or any(map(_is_put_off, flow_runs))
        self._begun, self._looked = set(begun), time.monotonic()
        self._note_turns([users[id_] for id_ in made.begin if id_ in due])
        return set(made.put_off)

    async def _is_alone(self, due: AbstractSet[UUID], begun: AbstractSet[UUID]) -> bool:
        """Whether there is one flow run to begin, and nobody with whom it would take turns."""
        if len(due) != 1 or begun or self._some_are_put_off:
            return False
        async with self._sessions() as session:
            return not await others_are_open(session, self._pool, *due)

    def _is_time_to_recall(self, begun: AbstractSet[UUID]) -> bool:
        """Whether flow runs are put off and one may begin now, since others may have ended."""
        overdue = time.monotonic() - self._looked >= _LOOK_SECONDS
        return self._some_are_put_off and (overdue or begun != self._begun)

    def _rooms(self, state: "_Sorted", found: PoolLimits) -> Callable[[Waiting], Sequence[Room]]:
        """A function for the limits of a flow run: of its user, resource, work pool and queue."""
        here = Room(self._limit - sum(state.running.values()), self._full)
        pool = Room(found.free_in_pool() - state.starting, full_pool(found.pool))
        queues = {
            name: Room(found.free_in_queue(name), full_queue(found.pool, queue))
            for name, queue in found.queues.items()
        }
        users = {}
        if (limit := self._limit_of_user) is not None:
            users = {
                user: Room(limit - state.running[user], _why(user, limit))
                for user in {each.user for each in state.waiting}
            }

        def rooms(each: Waiting) -> list[Room]:
            own = [users.get(each.user), here, pool, queues.get(each.queue)]
            return [room for room in own if room is not None]

        return rooms

    async def _tell(self, made: Decision) -> None:
        later = now() + _PUT_OFF
        for id_, reason in islice(made.put_off.items(), _AT_ONCE):
            await self._engine.schedule(id_, AwaitingConcurrencySlot(State, later, message=reason))
        for id_ in made.recall:
            await self._engine.schedule(id_, Scheduled(message="It is its turn."))

    def _note_turns(self, users: Iterable[str]) -> None:
        for user in users:
            self._latest[user] = max(self._latest.values(), default=-1) + 1


@dataclass
class _Sorted:
    """Flow runs that wait; how many run, by user; how many of these Prefect does not count yet."""

    waiting: list[Waiting] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    starting: int = 0


def _sort(
    flow_runs: Sequence[FlowRun],
    found: PoolLimits,
    users: Mapping[UUID, str],
    due: AbstractSet[UUID],
    begun: AbstractSet[UUID],
) -> _Sorted:
    """Separate the flow runs that only wait for a slot from those that run."""
    moment, made = now(), _Sorted()
    for run in flow_runs:
        if (user := users.get(run.id)) is None:
            continue
        waits = run.state is not None and run.state.is_scheduled()
        queue = found.queues.get(run.work_queue_name or "")
        if run.id in begun or not waits:
            made.running[user] += 1
            made.starting += waits
        elif queue is None or not queue.is_paused:
            is_due = run.id in due or (run.state is not None and due_time(run.state) <= moment)
            if is_due or _is_put_off(run):
                rank = (0, 0) if run.run_count else (1, queue.priority or 0 if queue else 0)
                name = run.work_queue_name or ""
                created = run.created or moment
                made.waiting.append(Waiting(run.id, user, created, is_due, rank, name))
    return made


async def _users_of(session: AsyncSession, flow_runs: Sequence[FlowRun]) -> dict[UUID, str]:
    """The users of flow runs: from the database, or else from the parameters."""
    users = {run.id: str(run.parameters["user"]) for run in flow_runs if "user" in run.parameters}
    ids = [run.id for run in flow_runs]
    jobs = await session.execute(
        select(JobV2.flow_run_id, JobV2.user_email).where(col(JobV2.flow_run_id).in_(ids))
    )
    users |= {flow_run_id: user for flow_run_id, user in jobs if flow_run_id is not None}
    activities = {
        run.id: int(run.parameters["activity_id"])
        for run in flow_runs
        if "activity_id" in run.parameters
    }
    found = await session.execute(
        select(TaskGroupActivityV2.id, UserOAuth.email)
        .join(UserOAuth, col(UserOAuth.id) == col(TaskGroupActivityV2.user_id))
        .where(col(TaskGroupActivityV2.id).in_(activities.values()))
    )
    emails = dict(found.tuples().all())
    return users | {id_: emails[key] for id_, key in activities.items() if key in emails}


def _is_put_off(flow_run: FlowRun) -> bool:
    """Whether a flow run was put off by us; when Prefect itself does that, it leaves no message."""
    state = flow_run.state
    return state is not None and state.name == AWAITING_SLOT and state.message is not None


def _why(user: str, limit: int) -> str:
    jobs = "1 job" if limit == 1 else f"{limit} jobs"
    return f"{user} runs {jobs} on this resource, as many as one user may."
