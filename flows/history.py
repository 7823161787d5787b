"""All SQL that records a job: its end, the runs of its workflow tasks, their units, accounting.

Whatever grows with the number of images is one statement, fed with one JSON document.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.launchers.base import UnitResult
from flows.units import PlannedUnit
from fractal_models.database import saved_id
from fractal_models.images import Image
from fractal_models.tables import HistoryRun, JobV2
from fractal_models.tables.columns import now

Status = Literal["done", "failed"]


async def end_job(session: AsyncSession, job_id: int, *, status: Status, log: str) -> bool:
    """Give a submitted job its end and commit. False if it had ended before: nothing changes."""
    ended = await session.exec(
        update(JobV2)
        .where(col(JobV2.id) == job_id, col(JobV2.status) == "submitted")
        .values(status=status, end_timestamp=now(), log=log)
    )
    await session.commit()
    return bool(ended.rowcount)


async def open_run(
    session: AsyncSession, job: JobV2, workflow_task: dict[str, Any], num_available_images: int
) -> int:
    """Write and commit the HistoryRun of a workflow task (as the job keeps it); its id."""
    if job.dataset_id is None:
        raise ValueError(f"Job {job.id} has lost its dataset.")
    dump = {key: value for key, value in workflow_task.items() if key != "task_group"}
    run = HistoryRun(
        dataset_id=job.dataset_id,
        workflowtask_id=workflow_task["id"],
        job_id=saved_id(job),
        task_id=workflow_task["task_id"],
        workflowtask_dump=dump,
        task_group_dump=workflow_task["task_group"],
        status="submitted",
        num_available_images=num_available_images,
    )
    session.add(run)
    await session.commit()
    return saved_id(run)


async def create_units(
    session: AsyncSession, run_id: int, units: Sequence[PlannedUnit], units_dir: Path
) -> list[int]:
    """Write and commit the units of a phase, as submitted; their ids, in the same order."""
    logfiles = [str(log_path(units_dir, unit)) for unit in units]
    rows = [
        {"logfile": logfile, "zarr_urls": unit.zarr_urls}
        for logfile, unit in zip(logfiles, units, strict=True)
    ]
    created = await session.execute(_INSERT_UNITS, {"run_id": run_id, "units": rows})
    ids = {logfile: unit_id for unit_id, logfile in created}
    await session.commit()
    return [ids[logfile] for logfile in logfiles]


def log_path(units_dir: Path, unit: PlannedUnit) -> Path:
    """Where the unit runner writes the output of a unit."""
    return units_dir / f"{unit.name}.log"


async def point_images_to_units(session: AsyncSession, run_id: int) -> None:
    """Make the units of a run the latest ones of their images, and commit."""
    await session.execute(_UPSERT_IMAGE_CACHE, {"run_id": run_id})
    await session.commit()


@dataclass(frozen=True, slots=True)
class EndedUnit:
    """A HistoryUnit's end: its row, whether its images are done, and what the runner measured."""

    id: int
    succeeded: bool
    result: UnitResult | None  # None: it never ran, or was lost with its runner


async def record_units(session: AsyncSession, units: Iterable[EndedUnit]) -> None:
    """Write and commit the ends of units."""
    rows = [_unit_row(unit) for unit in units]
    if rows:
        await session.execute(_UPDATE_UNITS, {"units": rows})
        await session.commit()


def _unit_row(unit: EndedUnit) -> dict[str, Any]:
    row: dict[str, Any] = {"id": unit.id, "status": "done" if unit.succeeded else "failed"}
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


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a workflow task ended, and the image list it leaves (None: as it was)."""

    status: Status
    num_units: int
    num_failed_units: int
    images: list[Image] | None
    num_new_images: int
    removed: Sequence[str]
    all_units_fail: bool  # a compound task's units succeed or fail together


async def close_run(
    session: AsyncSession, job: JobV2, run_id: int, workflow_task: dict[str, Any], end: RunEnd
) -> None:
    """Record the end of a workflow task in one transaction: wholly or not at all.

    That is the HistoryRun's status, units that are not ended (failed), the dataset's images and
    history, and the accounting.
    """
    await session.execute(_CLOSE_RUN, {"run_id": run_id, "status": end.status})
    await session.execute(_FAIL_UNITS, {"run_id": run_id, "all": end.all_units_fail})
    entry = {
        "history_run_id": run_id,
        "job_id": job.id,
        "workflowtask": {
            "id": workflow_task["id"],
            "order": workflow_task["order"],
            "task_id": workflow_task["task_id"],
            "name": workflow_task["task"]["name"],
        },
        "status": end.status,
        "num_units": end.num_units,
        "num_failed_units": end.num_failed_units,
        "num_new_images": end.num_new_images,
        "timestamp_ended": now().isoformat(),
    }
    await session.execute(_APPEND_HISTORY, {"dataset_id": job.dataset_id, "entry": [entry]})
    if end.images is not None:
        await session.execute(_SET_IMAGES, {"dataset_id": job.dataset_id, "images": end.images})
    if end.removed:
        removed = {"dataset_id": job.dataset_id, "zarr_urls": list(end.removed)}
        await session.execute(_FORGET_IMAGES, removed)
    counts = {"num_tasks": end.num_units, "num_new_images": end.num_new_images}
    await session.execute(_ACCOUNT, {"job_id": job.id, "timestamp": now(), **counts})
    await session.commit()


_INSERT_UNITS = text(
    """
    INSERT INTO historyunit (history_run_id, status, logfile, zarr_urls)
    SELECT :run_id, 'submitted', unit.logfile, unit.zarr_urls
    FROM jsonb_to_recordset(:units) AS unit(logfile text, zarr_urls text[])
    RETURNING id, logfile
    """
).bindparams(bindparam("units", type_=JSONB))

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

_CLOSE_RUN = text("UPDATE historyrun SET status = :status WHERE id = :run_id")

_FAIL_UNITS = text(
    """
    UPDATE historyunit SET status = 'failed'
    WHERE history_run_id = :run_id AND (status = 'submitted' OR (:all AND status = 'done'))
    """
)

_APPEND_HISTORY = text(
    "UPDATE datasetv2 SET history = history || :entry WHERE id = :dataset_id"
).bindparams(bindparam("entry", type_=JSONB))

_SET_IMAGES = text("UPDATE datasetv2 SET images = :images WHERE id = :dataset_id").bindparams(
    bindparam("images", type_=JSONB)
)

_FORGET_IMAGES = text(
    "DELETE FROM historyimagecache WHERE dataset_id = :dataset_id AND zarr_url = ANY(:zarr_urls)"
)

# The job's user by its row, not by what was read at its start: an email can change.
_ACCOUNT = text(
    """
    INSERT INTO accountingrecord (user_id, timestamp, num_tasks, num_new_images)
    SELECT user_oauth.id, :timestamp, :num_tasks, :num_new_images
    FROM jobv2 JOIN user_oauth ON user_oauth.email = jobv2.user_email
    WHERE jobv2.id = :job_id
    """
)
