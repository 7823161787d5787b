"""SQL of the outbox: the events that Prefect has not confirmed yet."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, text
from sqlalchemy.orm import Mapped
from sqlmodel import col, delete, or_, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records.events import JobFacts, Outcome, job_event, workflow_task_event
from fractal_models.tables import EventOutbox
from fractal_models.tables.columns import now

_COUNT_UNITS = text(
    """
    SELECT count(*) AS num_units, count(*) FILTER (WHERE unit.status = 'failed') AS num_failed_units
    FROM historyrun run JOIN historyunit unit ON unit.history_run_id = run.id
    WHERE run.job_id = :job_id
    """
)


async def write_job_event(
    session: AsyncSession,
    job_id: int,
    status: Literal["submitted"] | Outcome,
    *,
    occurred: datetime,
    reason: str | None = None,
) -> None:
    """Add a job's event to the transaction that records the new status of the job."""
    job = await _facts_of(session, job_id)
    counted = await session.execute(_COUNT_UNITS, {"job_id": job_id})
    counts = dict(counted.mappings().one())
    session.add(job_event(job, status, occurred=occurred, reason=reason, counts=counts))


async def write_workflow_task_event(
    session: AsyncSession,
    job_id: int,
    workflow_task: Mapping[str, Any],
    status: Literal["done", "failed"],
    *,
    occurred: datetime,
    reason: str | None,
    counts: Mapping[str, int],
) -> None:
    """Add an event to the transaction that records the end of a workflow task."""
    job = await _facts_of(session, job_id)
    event = workflow_task_event(
        job, workflow_task, status, occurred=occurred, reason=reason, counts=counts
    )
    session.add(event)


async def take_due(session: AsyncSession, limit: int, again_after: timedelta) -> list[EventOutbox]:
    """The oldest events to send: never sent, or sent at least `again_after` ago and not confirmed.

    Other workers do not get them until this transaction ends. If it is committed, they count as
    sent.
    """
    sent = col(EventOutbox.sent)
    due = or_(sent.is_(None), ~_within(sent, again_after))
    found = await session.exec(
        select(EventOutbox)
        .where(due)
        .order_by(col(EventOutbox.occurred))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    events = list(found)
    await session.exec(
        update(EventOutbox)
        .where(col(EventOutbox.id).in_([event.id for event in events]))
        .values(sent=now())
    )
    return events


def _within(sent: Mapped[datetime | None], ago: timedelta) -> ColumnElement[bool]:
    """Whether that was no longer ago. A time in the future is: the clock was set back since."""
    return sent.between(now() - ago, now() + ago)


async def give_back(session: AsyncSession, events: Sequence[EventOutbox]) -> None:
    """Mark events whose sending failed as not sent, so that they are sent again, and commit."""
    ids = [event.id for event in events]
    await session.exec(update(EventOutbox).where(col(EventOutbox.id).in_(ids)).values(sent=None))
    await session.commit()


async def read_sent(session: AsyncSession, limit: int, ago: timedelta) -> dict[UUID, datetime]:
    """When each event occurred that was sent at least `ago`, by its id.

    The events that were sent longest ago are first.
    """
    sent = col(EventOutbox.sent)
    found = await session.execute(
        select(EventOutbox.id, EventOutbox.occurred)
        .where(sent.is_not(None), ~_within(sent, ago))
        .order_by(sent)
        .limit(limit)
    )
    return dict(found.tuples().all())


async def forget(session: AsyncSession, ids: Sequence[UUID]) -> None:
    """Delete events that Prefect has received, and commit."""
    await session.exec(delete(EventOutbox).where(col(EventOutbox.id).in_(ids)))
    await session.commit()


_FACTS = text(
    """
    SELECT job.id AS job_id, job.flow_run_id, job.user_email AS user, user_oauth.id AS user_id,
        CAST(job.project_dump->>'id' AS int) AS project_id, job.project_dump->>'name' AS project,
        CAST(job.workflow_dump->>'id' AS int) AS workflow_id,
        job.workflow_dump->>'name' AS workflow,
        CAST(job.dataset_dump->>'id' AS int) AS dataset_id, job.dataset_dump->>'name' AS dataset,
        resource.id AS resource_id, resource.name AS resource
    FROM jobv2 job
    LEFT JOIN user_oauth ON user_oauth.email = job.user_email
    LEFT JOIN projectv2 project ON project.id = job.project_id
    LEFT JOIN resource ON resource.id = project.resource_id
    WHERE job.id = :job_id
    """
)


async def _facts_of(session: AsyncSession, job_id: int) -> JobFacts:
    found = await session.execute(_FACTS, {"job_id": job_id})
    return JobFacts(**found.mappings().one())
