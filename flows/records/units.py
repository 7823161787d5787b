"""SQL of HistoryUnits and of the HistoryImageCache.

What grows with the number of images is written by one statement that gets one JSON document.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.programs.unit_runner import STOPPED
from flows.records import observation
from flows.records.jobs import note_progress
from flows.units.plan import PlannedUnit
from flows.units.results import UnitResult
from fractal_models.database import analyse
from fractal_models.tables import HistoryUnit

_UNIT_ID = col(HistoryUnit.id)


@dataclass(frozen=True, slots=True)
class RecordedUnit:
    """A unit that an earlier process of the job recorded."""

    id: int
    status: str
    logfile: str
    zarr_urls: list[str]


async def units_of_run(session: AsyncSession, run_id: int) -> list[RecordedUnit]:
    """The units that a HistoryRun has so far, in the order in which they were written."""
    found = await session.execute(
        select(HistoryUnit.id, HistoryUnit.status, HistoryUnit.logfile, HistoryUnit.zarr_urls)
        .where(HistoryUnit.history_run_id == run_id)
        .order_by(_UNIT_ID)
    )
    return [RecordedUnit(*row) for row in found]


async def images_done(session: AsyncSession, run_ids: Sequence[int]) -> set[str]:
    """The images of all done units of these HistoryRuns."""
    found = await session.exec(
        select(HistoryUnit.zarr_urls).where(
            col(HistoryUnit.history_run_id).in_(run_ids), HistoryUnit.status == "done"
        )
    )
    return {url for urls in found for url in urls}


_INSERT_UNITS = text(
    """
    INSERT INTO historyunit (history_run_id, status, logfile, zarr_urls)
    SELECT :run_id, 'submitted', unit.logfile, unit.zarr_urls
    FROM jsonb_to_recordset(:units) AS unit(logfile text, zarr_urls text[])
    RETURNING id, logfile
    """
).bindparams(bindparam("units", type_=JSONB))

_UPSERT_IMAGE_CACHE = text(
    """
    INSERT INTO historyimagecache (zarr_url, dataset_id, workflowtask_id, latest_history_unit_id)
    SELECT zarr_url, run.dataset_id, run.workflowtask_id, max(unit.id)
    FROM historyrun run
    JOIN historyunit unit ON unit.history_run_id = run.id, unnest(unit.zarr_urls) AS zarr_url
    WHERE run.id = :run_id AND run.workflowtask_id IS NOT NULL
    GROUP BY zarr_url, run.dataset_id, run.workflowtask_id
    ON CONFLICT (zarr_url, dataset_id, workflowtask_id)
    DO UPDATE SET latest_history_unit_id = excluded.latest_history_unit_id
    """
)


async def create_units(
    session: AsyncSession,
    run_id: int,
    units: Sequence[PlannedUnit],
    logfiles: Sequence[str],
    *,
    point_images: bool,
) -> list[int]:
    """Write and commit the units of a phase, as submitted. Returns their ids, in the same order.

    With `point_images`, the HistoryImageCache points each image to its unit in this HistoryRun.
    """
    rows = [
        {"logfile": logfile, "zarr_urls": unit.zarr_urls}
        for logfile, unit in zip(logfiles, units, strict=True)
    ]
    created = await session.execute(_INSERT_UNITS, {"run_id": run_id, "units": rows})
    ids = {logfile: unit_id for unit_id, logfile in created}
    if point_images:
        await session.execute(_UPSERT_IMAGE_CACHE, {"run_id": run_id})
    await session.commit()
    await analyse(session, len(units), "historyunit", "historyimagecache")
    return [ids[logfile] for logfile in logfiles]


def log_path(units_dir: Path, unit: PlannedUnit) -> Path:
    """Where the unit runner writes the output of a unit."""
    return units_dir / f"{unit.name}.log"


async def begin_attempt(session: AsyncSession, unit_ids: Sequence[int], attempt: int) -> None:
    """Record that units run again, with the number of the new attempt, and commit."""
    await session.execute(update(HistoryUnit).where(_UNIT_ID.in_(unit_ids)).values(attempt=attempt))
    await session.commit()


@dataclass(frozen=True, slots=True)
class EndedUnit:
    """The end of a HistoryUnit: the id of its row, its new status and what the runner measured.

    The init unit of a compound task stays `submitted`: its images are not done yet.
    """

    id: int
    status: Literal["submitted", "done", "failed"]
    result: UnitResult | None  # None: it never ran, or was lost with its runner


_UPDATE_UNITS = text(
    """
    UPDATE historyunit
    SET status = ended.status, has_warnings = coalesce(ended.has_warnings, false),
        started_at = ended.started_at, ended_at = ended.ended_at, exit_code = ended.exit_code,
        max_rss_kb = ended.max_rss_kb, cpu_seconds = ended.cpu_seconds, host = ended.host
    FROM jsonb_to_recordset(:units) AS ended(
        id int, status text, has_warnings bool, started_at timestamptz, ended_at timestamptz,
        exit_code int, max_rss_kb bigint, cpu_seconds float, host text)
    WHERE historyunit.id = ended.id
    AND historyunit.status = 'submitted' AND historyunit.ended_at IS NULL
    RETURNING historyunit.id
    """
).bindparams(bindparam("units", type_=JSONB))


async def record_units(session: AsyncSession, job_id: int, units: Iterable[EndedUnit]) -> None:
    """Record the ends of units, and commit. A unit that has an end already keeps it.

    A new end is progress, so the job's number of restarts is set to 0.
    """
    ends = {unit.id: unit for unit in units}
    rows = [_unit_row(unit) for unit in ends.values()]
    recorded = (await session.execute(_UPDATE_UNITS, {"units": rows})).scalars().all()
    if recorded:
        counts = Counter(_how_it_ended(ends[unit_id]) for unit_id in recorded)
        await observation.count_ended(session, job_id, "unit", counts)
        await note_progress(session, job_id)
    await session.commit()


def _how_it_ended(unit: EndedUnit) -> observation.Ended:
    """The outcome of a unit, and what failed it."""
    if unit.status != "failed":
        return "done", ""
    if unit.result is None:
        return "failed", "no result"  # SLURM ended it, it was lost, or it never ran
    if unit.result.succeeded:
        return "failed", "output"
    if unit.result.error is not None:
        return "failed", "stopped" if unit.result.error == STOPPED else "not started"
    return "failed", "exit code" if unit.result.signal is None else "signal"


def _unit_row(unit: EndedUnit) -> dict[str, Any]:
    row: dict[str, Any] = {"id": unit.id, "status": unit.status}
    if (result := unit.result) is not None:
        row |= {
            "has_warnings": result.has_warnings,
            "started_at": result.started_at,
            "ended_at": result.ended_at,
            "exit_code": result.exit_code if result.signal is None else -result.signal,
            "max_rss_kb": result.max_rss_kb,
            "cpu_seconds": result.cpu_seconds,
            "host": result.host,
        }
    return row
