"""Which occurrences are run after a downtime, and how they are told; without a stack."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import CreatedBy, FlowRun, State, StateType
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
    Suspended,
)

from flows.schedules.occurrences import TAG, begins_by_itself, due, leads_back, missed, outcome_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NIGHTLY, OTHER = uuid4(), uuid4()


def flow_run(minutes: float, deployment_id: UUID = NIGHTLY, **fields: Any) -> FlowRun:
    """An occurrence so many minutes after noon."""
    given = {
        "flow_id": uuid4(),
        "deployment_id": deployment_id,
        "expected_start_time": NOON + timedelta(minutes=minutes),
        "auto_scheduled": True,
        "tags": [TAG],
        "state": Scheduled(),
    }
    return FlowRun(**{**given, **fields})


def creator(type_: str, id_: UUID | None = None) -> CreatedBy:
    return CreatedBy(id=id_ or uuid4(), type=type_, display_value="it")


def test_what_schedules_and_automations_made_begins_by_itself() -> None:
    assert begins_by_itself(flow_run(0))
    assert begins_by_itself(flow_run(0, auto_scheduled=False, created_by=creator("AUTOMATION")))
    assert not begins_by_itself(flow_run(0, auto_scheduled=False))
    assert not begins_by_itself(flow_run(0, auto_scheduled=False, created_by=creator("USER")))


def test_due_is_what_should_have_begun_and_has_not() -> None:
    now, past, later = flow_run(0), flow_run(-5), flow_run(0.1)
    by_hand = flow_run(-5, auto_scheduled=False)
    interrupted = flow_run(-5, run_count=1, state=AwaitingRetry())
    assert due([now, past, later, by_hand, interrupted], NOON) == [now, past]


def test_of_each_schedule_the_latest_is_run_in_place_of_the_others() -> None:
    a, b, c = (flow_run(minutes) for minutes in (-30, -20, -10))
    alone = flow_run(-40, OTHER)
    assert missed([c, a, alone, b]) == {c.id: [a.id, b.id]}
    assert missed([alone]) == {}


def test_of_two_at_the_same_time_one_is_run() -> None:
    first, second = sorted([flow_run(-10), flow_run(-10)], key=lambda run: run.id)
    assert missed([second, first]) == {second.id: [first.id]}


def test_schedules_that_were_made_in_prefect_on_one_deployment_are_each_its_own() -> None:
    hourly, daily = uuid4(), uuid4()

    def of(schedule: UUID, minutes: int) -> FlowRun:
        return flow_run(minutes, tags=[], created_by=creator("SCHEDULE", schedule))

    a, b, c = of(hourly, -90), of(hourly, -30), of(daily, -60)
    assert missed([a, b, c]) == {b.id: [a.id]}


@pytest.mark.parametrize(
    ("state", "job", "outcome", "reason"),
    [
        (Scheduled(), None, "waiting", None),
        (Scheduled(name="Late"), None, "waiting", None),
        (Pending(), None, "waiting", None),
        (Suspended(), None, "waiting", None),
        (Running(), None, "running", None),
        (Running(), (7, "submitted"), "running", None),
        (AwaitingRetry(), (7, "submitted"), "running", None),
        (Completed(), (7, "done"), "run", None),
        (Failed(message="Job failed."), (7, "failed"), "run", None),
        (Completed(), None, "run", None),
        (Cancelled(name="Skipped", message="Busy."), None, "skipped", "Busy."),
        (Cancelled(), None, "skipped", "It was Cancelled in Prefect."),
        (Cancelling(), None, "skipped", "It was Cancelling in Prefect."),
        (Failed(message="No right."), None, "failed", "No right."),
        (Crashed(message="Gone."), None, "failed", "Gone."),
        (None, None, "waiting", None),
    ],
)
def test_what_became_of_an_occurrence(
    state: State[Any] | None, job: tuple[int, str] | None, outcome: str, reason: str | None
) -> None:
    run = flow_run(0, state=state)
    told = outcome_of(run, {run.id: job} if job else {})
    assert (told.outcome, told.reason) == (outcome, reason)
    assert (told.job_id, told.job_status) == (job or (None, None))
    assert told.expected == NOON


def test_every_type_of_state_has_an_outcome() -> None:
    for type_ in StateType:
        assert outcome_of(flow_run(0, state=State(type=type_)), {}).outcome


@pytest.mark.parametrize(
    ("follows", "back"),
    [
        ([], False),
        ([("a", "b")], False),
        ([("a", "a")], True),
        ([("a", "b"), ("b", "c")], False),
        ([("a", "b"), ("b", "c"), ("c", "a")], True),
        ([("a", "b"), ("b", "c"), ("c", "b")], False),
        ([("b", "a")], False),
    ],
)
def test_what_follows_one_thing_can_lead_back_to_it(
    follows: list[tuple[str, str]], back: bool
) -> None:
    assert leads_back(follows, "a") is back
