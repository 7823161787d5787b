"""Why jobs wait, in words."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, WorkPool, WorkQueue
from prefect.states import AwaitingConcurrencySlot, AwaitingRetry, Late, Pending, Running, Scheduled

from flows.engine.wait_reasons import (
    PoolLimits,
    describe_wait,
    last_reason,
    waiting_line,
    waits,
    why_it_waits,
)

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(seconds=5), NOW + timedelta(seconds=5)


def flow_run(state: State | None = None, queue: str = "default") -> FlowRun:
    state = state or Scheduled(scheduled_time=EARLIER)
    return FlowRun(flow_id=uuid4(), state=state, work_queue_name=queue)


def limits(pool: dict[str, object] | None = None, **queues: dict[str, object]) -> PoolLimits:
    queues = {"default": {}, **queues}
    found = [
        WorkQueue.model_validate({"name": name, "work_pool_id": uuid4(), **fields})
        for name, fields in queues.items()
    ]
    fields = {"name": "gpu", "type": "fractal-local", "default_queue_id": uuid4()}
    return PoolLimits(
        WorkPool.model_validate(fields | (pool or {})), {queue.name: queue for queue in found}
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Scheduled(scheduled_time=EARLIER), True),
        (Late(scheduled_time=EARLIER), True),
        (AwaitingRetry(scheduled_time=EARLIER), True),
        (Scheduled(scheduled_time=NOW), False),
        (Scheduled(scheduled_time=LATER), False),
        (AwaitingConcurrencySlot(scheduled_time=LATER), True),
        (Pending(), False),
        (Running(), False),
    ],
)
def test_a_flow_run_waits_if_it_is_due_for_a_while_or_has_no_slot(
    state: State, expected: bool
) -> None:
    assert waits(flow_run(state), NOW) is expected


FULL = {"concurrency_limit": 2, "active_slots": 2}
SLOT = AwaitingConcurrencySlot(scheduled_time=LATER)


@pytest.mark.parametrize(
    ("run", "known", "reason"),
    [
        (flow_run(), limits(), None),
        (flow_run(), limits({"concurrency_limit": 2, "active_slots": 1}), None),
        (flow_run(), limits({"is_paused": True, **FULL}), "The work pool 'gpu' is paused."),
        (
            flow_run(),
            limits(default={"is_paused": True}),
            "The queue 'default' of work pool 'gpu' is paused.",
        ),
        (flow_run(), limits(other={"is_paused": True}), None),
        (
            flow_run(),
            limits(FULL),
            "The work pool 'gpu' runs 2 flow runs, as many as its concurrency limit allows.",
        ),
        (
            flow_run(queue="slow"),
            limits(slow={"concurrency_limit": 1, "active_slots": 1}),
            "The queue 'slow' of work pool 'gpu' runs 1 flow run, as many as its concurrency "
            "limit allows.",
        ),
        (flow_run(SLOT), limits(FULL), "The concurrency limit of its deployment is reached."),
        (
            flow_run(SLOT.model_copy(update={"message": "Ada runs 2 jobs."})),
            limits(FULL),
            "Ada runs 2 jobs.",
        ),
        (flow_run(SLOT), limits({"is_paused": True}), "The work pool 'gpu' is paused."),
    ],
)
def test_the_reason_is_what_keeps_the_flow_run_longest(
    run: FlowRun, known: PoolLimits, reason: str | None
) -> None:
    assert why_it_waits(run, known) == reason


def test_a_log_tells_the_last_reason_and_when_the_job_begins_all_of_them() -> None:
    log = waiting_line("It is paused.", EARLIER) + waiting_line("It is full.", NOW)
    assert log.splitlines()[0] == "2026-03-14 15:09:21.000+00:00 Waiting: It is paused."
    assert last_reason(log) == "It is full."
    assert describe_wait(log, LATER) == "Waited 10 s. It is paused. Then: It is full."


def test_a_job_that_did_not_wait_tells_nothing() -> None:
    assert last_reason(None) is None
    assert describe_wait(None, NOW) == ""
