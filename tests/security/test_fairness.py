"""Nobody keeps a resource from others: users take turns, and activities have slots of their own."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from deployments.stack import Stack
from flows.watchers.turns import Decision, Limits, Room, Waiting, limits_of, plan
from fractal_models.settings import Settings
from fractal_models.tables import Resource
from tests.lab import Lab, eventually

BEGIN = datetime(2026, 3, 14, tzinfo=UTC)


def waiting(*described: str) -> list[Waiting]:
    """Flow runs described as `ada due` or `ada put off`, each created a second after the last."""
    return [
        Waiting(UUID(int=number), each[:3], BEGIN + timedelta(seconds=number), "due" in each)
        for number, each in enumerate(described)
    ]


def planned(
    runs: Sequence[Waiting],
    running: dict[str, int] | None = None,
    *,
    slots: float = math.inf,
    of_user: float = math.inf,
    latest: dict[str, int] | None = None,
) -> Decision:
    """Their plan, where so many may run at once in all, and so many of one user."""
    running = running or {}
    here = Room(slots - sum(running.values()), "full")
    users = {each.user: Room(of_user - running.get(each.user, 0), each.user) for each in runs}
    return plan(reversed(runs), running, lambda each: [users[each.user], here], latest or {})


def numbers(ids: Any) -> list[int]:
    return [each.int for each in ids]


@pytest.mark.parametrize(
    ("runs", "running", "put_off", "recalled"),
    [
        (waiting(), {}, [], []),
        (waiting("ada due"), {}, [], []),
        (waiting("ada due"), {"ada": 1}, [], []),
        (waiting("ada due"), {"ada": 2}, [0], []),
        (waiting("ada due"), {"ada": 3}, [0], []),
        (waiting("ada due", "ada due", "ada due"), {}, [2], []),
        (waiting("ada due", "bob due"), {"ada": 2}, [0], []),
        (waiting("ada put off"), {"ada": 2}, [], []),
        (waiting("ada put off", "ada put off"), {"ada": 1}, [], [0]),
        # who waits longer goes first, whatever was put off
        (waiting("ada put off", "ada due"), {"ada": 1}, [1], [0]),
        (waiting("ada due", "ada put off"), {"ada": 1}, [], []),
        (waiting("ada put off", "bob due"), {"ada": 2, "bob": 1}, [], []),
    ],
)
def test_a_user_runs_at_most_two_the_oldest_first(
    runs: list[Waiting], running: dict[str, int], put_off: list[int], recalled: list[int]
) -> None:
    made = planned(runs, running, of_user=2)
    assert sorted(numbers(made.put_off)) == put_off
    assert numbers(made.recall) == recalled
    assert set(made.put_off.values()) <= {each.user for each in runs}


@pytest.mark.parametrize(
    ("runs", "running", "latest", "begun"),
    [
        # one after the other, however many one of them has
        (waiting(*5 * ["ada due"], "bob due", "bob due"), {}, {}, [0, 5, 1]),
        # who runs less goes first
        (waiting("ada due", "ada due", "bob due"), {"ada": 1}, {}, [2, 0]),
        # else the one whose turn is the longest ago, or never was
        (waiting("ada due", "bob due", "cyd due", "dan due"), {}, {"ada": 3, "bob": 1}, [2, 3, 1]),
        (waiting("ada put off", "ada due", "bob due"), {"bob": 1}, {}, [0, 2]),
        (waiting("ada due", "bob due"), {"ada": 3}, {}, []),
    ],
)
def test_users_take_turns(
    runs: list[Waiting], running: dict[str, int], latest: dict[str, int], begun: list[int]
) -> None:
    made = planned(runs, running, slots=3, latest=latest)
    assert numbers(made.begin) == begun
    due = {each.id for each in runs if each.due}
    assert set(made.put_off) == due - set(made.begin)
    assert set(made.put_off.values()) <= {"full"}


def test_a_hundred_jobs_of_one_user_keep_another_waiting_for_one_turn() -> None:
    """With one slot, and nothing known but whose turn was the latest."""
    hundred = waiting(*100 * ["ada due"])
    order: list[str] = []
    latest: dict[str, int] = {}
    left = [*hundred, Waiting(UUID(int=100), "bob", BEGIN + timedelta(hours=1), due=True)]
    while left:
        [id_] = planned(left, slots=1, latest=latest).begin
        [begun] = [each for each in left if each.id == id_]
        left.remove(begun)
        latest[begun.user] = len(order)
        order.append(begun.user)
    assert order[:3] == ["ada", "bob", "ada"]
    assert len(order) == 101


def test_what_was_interrupted_goes_first_and_then_the_better_queue() -> None:
    patient, urgent, begun = (
        Waiting(UUID(int=number), user, BEGIN + timedelta(seconds=number), due=True, rank=rank)
        for number, (user, rank) in enumerate([("ada", (1, 2)), ("ada", (1, 1)), ("bob", (0, 0))])
    )
    made = planned([patient, urgent, begun], {"bob": 1}, slots=3)
    assert numbers(made.begin) == [2, 1]
    assert numbers(made.put_off) == [0]


@pytest.mark.parametrize(
    ("kind", "cores", "given", "expected"),
    [
        ("local", 2, {}, Limits(4, 2)),
        ("local", 16, {}, Limits(16, 8)),
        ("slurm_ssh", 2, {}, Limits(40, 2)),
        ("slurm_sudo", 16, {}, Limits(160, 8)),
        ("local", 2, {"max_running_jobs": 1, "max_running_activities": 1}, Limits(1, 1)),
        ("local", 2, {"max_running_jobs_per_user": 3}, Limits(4, 2, 3)),
    ],
)
def test_what_runs_at_once_is_what_the_machine_can_bear_unless_it_is_set(
    kind: str, cores: int, given: dict[str, int], expected: Limits
) -> None:
    settings = Settings(
        database_url="postgresql://localhost/none", prefect_api_url="http://127.0.0.1:9/api"
    ).model_copy(update=given)
    resource = Resource(
        type=kind, name="here", jobs_local_dir="/", tasks_local_dir="/", jobs_poll_interval=0
    )
    assert limits_of(settings, resource, cores) == expected


# --- on the stack ------------------------------------------------------------------------------

MANY = 12


async def test_many_jobs_of_one_user_keep_neither_jobs_of_another_nor_collections_waiting(
    stack: Stack, lab: Lab, bob: Lab
) -> None:
    # They take longer than it takes to submit them all.
    jobs = [await lab.submit_process(seconds=8) for _ in range(MANY)]
    bobs = await bob.submit_process(seconds=0)
    wheel = {"file": ("no_tasks-1.0-py3-none-any.whl", b"this is no wheel")}
    activity = await bob.ok("POST", "/api/v2/task/collect/pip/", files=wheel)

    reason = " Waiting: This resource runs at most "
    await eventually(lambda: lab.job(jobs[-1]), lambda now: reason in (now["log"] or ""))
    url = f"/api/v2/task-group/activity/{activity['id']}/"
    ended = await eventually(
        lambda: bob.ok("GET", url), lambda now: now["status"] not in ("pending", "ongoing")
    )
    assert ended["status"] == "failed"
    assert (await bob.ended(bobs))["status"] == "done"
    left = [job for job in jobs if (await lab.job(job))["status"] == "submitted"]
    assert left, "all jobs had ended before those of another user"
    for job in left:
        answer = await lab.client.get(f"{lab.base}/job/{job['id']}/stop/")
        assert answer.is_success or "has ended already (done)" in answer.json()["detail"]
    for job in left:
        await lab.ended(job)
