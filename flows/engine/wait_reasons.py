"""Why a submitted job waits, as text for its log."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prefect.client.schemas.objects import FlowRun, State, WorkPool, WorkQueue

# A flow run that has been due for longer than this, and has not begun, waits for something.
_PATIENCE = timedelta(seconds=3)
# Prefect's name of the state of flow runs that wait for others to end.
AWAITING_SLOT = "AwaitingConcurrencySlot"
_WAITING = " Waiting: "
PREFECT_AWAY = "Prefect, the workflow engine, does not answer."


@dataclass(frozen=True)
class PoolLimits:
    """A work pool and its queues, by name."""

    pool: WorkPool
    queues: Mapping[str, WorkQueue]

    def free_in_pool(self) -> float:
        """How many more flow runs Prefect lets begin in the pool."""
        return _free(self.pool)

    def free_in_queue(self, name: str) -> float:
        """How many more flow runs Prefect lets begin in a queue."""
        return _free(self.queues[name])


def waits(flow_run: FlowRun, moment: datetime) -> bool:
    """Whether something prevents a flow run from beginning."""
    state = flow_run.state
    if state is None or not state.is_scheduled():
        return False
    return state.name == AWAITING_SLOT or moment - due_time(state) > _PATIENCE


def due_time(state: State[Any]) -> datetime:
    """The time at which a scheduled flow run should begin."""
    return state.state_details.scheduled_time or state.timestamp


def why_it_waits(flow_run: FlowRun, limits: PoolLimits) -> str | None:
    """What prevents a waiting flow run from beginning; None if that is not known.

    The text is the same as long as the reason is: it names limits, not how much of them is used.
    """
    pool, queue = limits.pool, limits.queues.get(flow_run.work_queue_name or "")
    its_queue = f"The queue {queue.name!r} of work pool {pool.name!r}" if queue else ""
    if pool.is_paused:
        return f"The work pool {pool.name!r} is paused."
    if queue and queue.is_paused:
        return f"{its_queue} is paused."
    if flow_run.state is not None and flow_run.state.name == AWAITING_SLOT:
        # Prefect, which knows only limits of deployments, leaves no message.
        return flow_run.state.message or "The concurrency limit of its deployment is reached."
    if _free(pool) < 1:
        return full_pool(pool)
    if queue and _free(queue) < 1:
        return full_queue(pool, queue)
    return None


def full_pool(pool: WorkPool) -> str:
    """Why flow runs wait in a work pool that has no free slot."""
    return f"The work pool {pool.name!r} runs {_at_most(pool.concurrency_limit)}."


def full_queue(pool: WorkPool, queue: WorkQueue) -> str:
    """Why flow runs wait in a queue that has no free slot."""
    runs = _at_most(queue.concurrency_limit)
    return f"The queue {queue.name!r} of work pool {pool.name!r} runs {runs}."


def without_worker(resource_name: str) -> str:
    """Why jobs wait on a resource that has no running worker."""
    return f"Resource {resource_name!r} has no worker that runs: an administrator can start one."


def waiting_line(reason: str, moment: datetime) -> str:
    """The line that a job's log gets for a reason to wait."""
    return f"{moment.isoformat(' ', 'milliseconds')}{_WAITING}{reason}\n"


def last_reason(log: str | None) -> str | None:
    """The last reason to wait in a log; None if there is none."""
    lines = _told(log)
    return lines[-1][1] if lines else None


def describe_wait(log: str | None, moment: datetime) -> str:
    """How long a job that begins now has waited, and why; empty if its log has no reason."""
    lines = _told(log)
    if not lines:
        return ""
    seconds = (moment - datetime.fromisoformat(lines[0][0])).total_seconds()
    return f"Waited {seconds:.0f} s. {' Then: '.join(reason for _, reason in lines)}"


def _told(log: str | None) -> list[tuple[str, str]]:
    """The times and reasons in a log."""
    found = (line.partition(_WAITING) for line in (log or "").splitlines())
    return [(time, reason) for time, waiting, reason in found if waiting]


def _free(place: WorkPool | WorkQueue) -> float:
    limit = place.concurrency_limit
    return math.inf if limit is None else limit - (place.active_slots or 0)


def _at_most(limit: int | None) -> str:
    runs = "flow run" if limit == 1 else "flow runs"
    return f"{limit} {runs}, as many as its concurrency limit allows"
