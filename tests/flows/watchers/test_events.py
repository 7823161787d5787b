"""What happens to jobs is told in Prefect events: all of it, and each event once."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from flows.engine.client import Engine
from flows.records import outbox
from flows.records.jobs import outcome_of_stop
from flows.watchers.events import EventSender
from fractal_models.database import saved_id
from fractal_models.tables import EventOutbox, JobV2
from tests.flows.job.test_outages import away
from tests.journal import Journal, eventually
from tests.lab import Lab

Sessions = async_sessionmaker[AsyncSession]
Event = dict[str, Any]


async def events_of(prefect: PrefectClient, job: dict[str, Any]) -> list[Event]:
    """What Prefect has of Fractal's events of a job and its workflow tasks, the oldest first."""
    wanted = {
        "event": {"prefix": ["fractal."]},
        "any_resource": {"id": [f"fractal.job.{job['id']}"]},
        "order": "ASC",
    }
    answer = await prefect.request("POST", "/events/filter", json={"filter": wanted})
    events: list[Event] = answer.json()["events"]
    return events


async def told(prefect: PrefectClient, sessions: Sessions, job: dict[str, Any]) -> list[Event]:
    """The events of an ended job, when Prefect has them all."""
    await eventually(lambda: waiting(sessions), lambda events: events == 0)
    return await events_of(prefect, job)


async def waiting(sessions: Sessions) -> int:
    """How many events Prefect is not known to have."""
    async with sessions() as session:
        return (await session.exec(select(func.count(col(EventOutbox.id))))).one()


def names(events: list[Event]) -> list[str]:
    return [event["event"].removeprefix("fractal.") for event in events]


def related(event: Event) -> dict[str, tuple[str, str]]:
    """The related resources of an event: id and name, by role."""
    return {
        each["prefect.resource.role"]: (each["prefect.resource.id"], each["prefect.resource.name"])
        for each in event["related"]
    }


async def test_a_job_that_is_done_is_told_of_once_with_all_around_it(
    lab: Lab, prefect: PrefectClient, fractal: Sessions, stack: Stack
) -> None:
    workflow = await lab.workflow("Process", ("Process", {"alias": "once more"}))
    dataset = await lab.dataset("A01", "A02")
    job = await lab.run(workflow, dataset)
    events = await told(prefect, fractal, job)
    assert names(events) == ["job.submitted", *["workflow-task.done"] * 2, "job.done"]
    submitted, first, second, done = events

    title = f"job {job['id']} · {workflow['name']} on images"
    assert done["resource"] == {
        "prefect.resource.id": f"fractal.job.{job['id']}",
        "prefect.resource.name": title,
        "fractal.job.status": "done",
    }
    around = {
        "project": (f"fractal.project.{lab.project_id}", "lab"),
        "workflow": (f"fractal.workflow.{workflow['id']}", workflow["name"]),
        "dataset": (f"fractal.dataset.{dataset['id']}", "images"),
        "user": ("fractal.user.1", stack.initialised.admin_email),
        "fractal-resource": ("fractal.resource.1", "local"),
    }
    flow_run = {"flow-run": (f"prefect.flow-run.{job['flow_run_id']}", title)}
    assert related(submitted) == around
    assert related(done) == around | flow_run
    assert related(first) == around | flow_run | {"job": (f"fractal.job.{job['id']}", title)}
    assert [task["resource"]["prefect.resource.id"] for task in (first, second)] == [
        f"fractal.workflow-task.{task['id']}" for task in workflow["task_list"]
    ]
    assert second["resource"]["prefect.resource.name"] == "1 once more"
    assert done["payload"]["num_units"] == 4
    assert first["payload"]["num_units"] == 2
    assert {event["payload"]["reason"] for event in events} == {None}
    ended = await lab.job(job)
    for event, key in ((submitted, "start_timestamp"), (done, "end_timestamp")):
        assert datetime.fromisoformat(event["occurred"]) == datetime.fromisoformat(ended[key])


async def test_a_job_that_fails_is_told_of_with_the_reason(
    lab: Lab, prefect: PrefectClient, fractal: Sessions
) -> None:
    workflow = await lab.workflow(("Process", {"args_parallel": {"fail_on": ["A02"]}}), "Process")
    job = await lab.run(workflow, await lab.dataset("A01", "A02"))
    events = await told(prefect, fractal, job)
    assert names(events) == ["job.submitted", "workflow-task.failed", "job.failed"]
    for event in events[1:]:
        payload = event["payload"]
        assert (payload["num_units"], payload["num_failed_units"]) == (2, 1)
        assert "1 of 2 units failed" in payload["reason"]
        assert "encountered an exception" not in payload["reason"]


async def test_a_job_that_is_stopped_is_told_of_as_stopped(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    args = {**journal.args, "seconds": 30}
    workflow = await journal_lab.workflow(("Journal process", {"args_parallel": args}))
    job = await journal_lab.submit(workflow, await journal_lab.dataset("A01"))
    await journal.begins()
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    assert (await journal_lab.ended(job))["status"] == "failed"
    events = await told(prefect, fractal, job)
    assert names(events) == ["job.submitted", "workflow-task.failed", "job.stopped"]
    assert events[-1]["payload"]["status"] == "stopped"
    assert "Stopped through the Fractal API" in events[-1]["payload"]["reason"]


async def test_a_job_that_is_stopped_before_it_began_is_told_of_as_stopped(
    lab: Lab, prefect: PrefectClient, fractal: Sessions, stack: Stack
) -> None:
    async with away(stack, "prefect"):
        job = await lab.ask_for_job(await lab.workflow("Process"), await lab.dataset("A01"))
        await lab.ok("GET", f"{lab.base}/job/{job['id']}/stop/")
        assert (await lab.job(job))["status"] == "failed"
        assert await waiting(fractal) == 2
    assert names(await told(prefect, fractal, job)) == ["job.submitted", "job.stopped"]


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("Stopped through the Fractal API.", "stopped"),
        ("Given up after 3 restarts without progress: ...", "failed"),
        ("", "stopped"),
    ],
)
def test_a_job_that_was_given_up_has_failed(reason: str, outcome: str) -> None:
    assert outcome_of_stop(reason) == outcome


async def test_what_prefect_took_and_lost_is_sent_again(
    lab: Lab, prefect: PrefectClient, fractal: Sessions, stack: Stack
) -> None:
    """Prefect takes events into its memory, and writes them down seconds later."""

    class Forgetful(Engine):
        async def emit(self, events: Sequence[EventOutbox]) -> None: ...

    async with away(stack, "worker"):
        job = await lab.ask_for_job(await lab.workflow("Process"), await lab.dataset("A01"))
        await EventSender(fractal, Forgetful(prefect)).look()
        async with fractal() as session:
            assert len(await outbox.read_sent(session, 50, timedelta(0))) == 1
    await lab.ended(job)
    assert sorted(names(await told(prefect, fractal, job))) == [
        "job.done",
        "job.submitted",
        "workflow-task.done",
    ]


async def test_an_event_that_is_sent_twice_is_told_once(
    lab: Lab, prefect: PrefectClient, fractal: Sessions
) -> None:
    """A worker may die after Prefect took an event and before that is written down."""
    job = await lab.run(await lab.workflow("Process"), await lab.dataset("A01"))
    await told(prefect, fractal, job)
    async with fractal() as session:
        row = await session.get_one(JobV2, job["id"])
        await outbox.write_job_event(session, saved_id(row), "done", occurred=row.start_timestamp)
        (event,) = session.new
        assert isinstance(event, EventOutbox)
        await session.flush()
        for _ in range(2):
            await Engine(prefect).emit([event])
        await session.commit()
    done = Counter(names(await told(prefect, fractal, job)))["job.done"]
    assert done == 2  # its own, and this one


async def test_two_workers_do_not_send_the_same_event(
    lab: Lab, prefect: PrefectClient, fractal: Sessions, stack: Stack
) -> None:
    sent: list[UUID] = []

    class Slow(Engine):
        async def emit(self, events: Sequence[EventOutbox]) -> None:
            sent.extend(event.id for event in events)
            await asyncio.sleep(0.5)

    async with away(stack, "worker"):
        await lab.ask_for_job(await lab.workflow("Process"), await lab.dataset("A01"))
        await asyncio.gather(*[EventSender(fractal, Slow(prefect)).look() for _ in range(2)])
    assert len(sent) == len(set(sent)) == 1
