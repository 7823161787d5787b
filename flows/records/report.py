"""SQL that reads what the report of a job shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import Allocation

_MOST_FAILED = 200  # of a workflow task, whose logs are read
_MOST_DEMANDING = 5


@dataclass(frozen=True, slots=True)
class Units:
    """What was measured of the units of a workflow task that have run, a column for each.

    Times are seconds since the epoch, memory is in KiB.
    """

    started_at: Sequence[float]
    ended_at: Sequence[float]
    max_rss_kb: Sequence[int]
    cpu_seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class NamedUnit:
    """One unit. `exit_code` is minus the signal that ended it, and None if it has no result."""

    logfile: str | None
    zarr_urls: Sequence[str]
    exit_code: int | None
    seconds: float | None
    max_rss_kb: int | None


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A HistoryRun with its units: counts, measures, and some by name."""

    id: int
    status: str
    started_at: datetime
    num_available_images: int
    workflow_task: dict[str, Any]
    task_group: dict[str, Any] | None
    num_units: int
    num_done: int
    num_failed: int
    num_again: int
    units: Units
    failed: Sequence[NamedUnit]
    most_memory: Sequence[NamedUnit]


_RUNS = text(
    """
    SELECT run.id, run.status, run.timestamp_started AS started_at, run.num_available_images,
        run.workflowtask_dump AS workflow_task, run.task_group_dump AS task_group,
        count(unit.id) AS num_units,
        count(*) FILTER (WHERE unit.status = 'done') AS num_done,
        count(*) FILTER (WHERE unit.status = 'failed') AS num_failed,
        coalesce(sum(unit.attempt - 1), 0) AS num_again,
        array_agg(extract(epoch FROM unit.started_at)::float ORDER BY unit.id)
            FILTER (WHERE unit.ended_at IS NOT NULL) AS begins,
        array_agg(extract(epoch FROM unit.ended_at)::float ORDER BY unit.id)
            FILTER (WHERE unit.ended_at IS NOT NULL) AS ends,
        array_agg(unit.max_rss_kb ORDER BY unit.id)
            FILTER (WHERE unit.ended_at IS NOT NULL) AS memories,
        array_agg(unit.cpu_seconds ORDER BY unit.id)
            FILTER (WHERE unit.ended_at IS NOT NULL) AS cpu_seconds
    FROM historyrun run LEFT JOIN historyunit unit ON unit.history_run_id = run.id
    WHERE run.job_id = :job_id
    GROUP BY run.id
    ORDER BY run.id
    """
)
_NAMED = """
    SELECT run.id, unit.logfile, unit.zarr_urls[1\\:5], unit.exit_code,
        extract(epoch FROM unit.ended_at - unit.started_at)::float, unit.max_rss_kb
    FROM historyrun run CROSS JOIN LATERAL (
        SELECT * FROM historyunit WHERE history_run_id = run.id AND {where}
        ORDER BY {order} LIMIT :most
    ) AS unit
    WHERE run.job_id = :job_id
    """
_FAILED = text(_NAMED.format(where="status = 'failed'", order="id"))
_MOST_MEMORY = text(_NAMED.format(where="max_rss_kb IS NOT NULL", order="max_rss_kb DESC, id"))


async def reported_runs(session: AsyncSession, job_id: int) -> list[ReportedRun]:
    """The HistoryRuns of a job, the oldest first."""
    failed = await _by_run(session, _FAILED, job_id, _MOST_FAILED)
    most_memory = await _by_run(session, _MOST_MEMORY, job_id, _MOST_DEMANDING)
    found = await session.execute(_RUNS, {"job_id": job_id})
    return [
        ReportedRun(
            id=row.id,
            status=row.status,
            started_at=row.started_at,
            num_available_images=row.num_available_images,
            workflow_task=row.workflow_task,
            task_group=row.task_group,
            num_units=row.num_units,
            num_done=row.num_done,
            num_failed=row.num_failed,
            num_again=row.num_again,
            units=Units(
                row.begins or (), row.ends or (), row.memories or (), row.cpu_seconds or ()
            ),
            failed=failed.get(row.id, ()),
            most_memory=most_memory.get(row.id, ()),
        )
        for row in found
    ]


async def _by_run(
    session: AsyncSession, query: Any, job_id: int, most: int
) -> dict[int, list[NamedUnit]]:
    named: dict[int, list[NamedUnit]] = {}
    for run_id, *unit in await session.execute(query, {"job_id": job_id, "most": most}):
        named.setdefault(run_id, []).append(NamedUnit(*unit))
    return named


async def allocations_of(session: AsyncSession, job_id: int) -> list[Allocation]:
    """What was reserved for a job that has ended, the earliest first."""
    found = await session.exec(
        select(Allocation)
        .where(Allocation.job_id == job_id)
        .order_by(col(Allocation.started_at), col(Allocation.batch), col(Allocation.runner))
    )
    return list(found)
