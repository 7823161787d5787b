"""What goes on by the time of day goes on also if the clock was set back meanwhile."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import delete
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.programs import unit_runner
from flows.records.outbox import take_due
from flows.watchers.jobs import _submitted_jobs
from fractal_models.tables import EventOutbox, JobV2, Resource
from fractal_models.tables.columns import now

AN_HOUR = timedelta(hours=1)


def test_a_unit_ends_after_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = unit_runner.Unit(0, str(tmp_path / "000000"))
    set_back = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: set_back)
    monkeypatch.setattr(time, "time_ns", lambda: int(set_back * 1e9))
    assert 0 <= unit.now() - unit.started_at / 1e9 < 60


async def test_an_event_that_was_sent_in_the_future_is_sent_again(session: AsyncSession) -> None:
    await session.exec(delete(EventOutbox))
    event = EventOutbox(occurred=now(), sent=now() + AN_HOUR, event="fractal.job.done")
    session.add(event)
    await session.flush()
    assert await take_due(session, 10, timedelta(seconds=20)) == [event]
    assert await take_due(session, 10, timedelta(seconds=20)) == []


async def test_a_job_without_a_flow_run_that_was_submitted_in_the_future_is_looked_after(
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
    resource: Resource,
    session: AsyncSession,
) -> None:
    job = await session.get_one(JobV2, (await submit(runnable, dataset)).json()["id"])
    assert job.flow_run_id is None
    job.start_timestamp = now() + AN_HOUR
    await session.commit()
    assert [each.id for each in await _submitted_jobs(session, resource.work_pool)] == [job.id]
