"""All SQL that records a job: its end, the runs of its workflow tasks, their units, accounting.

Whatever grows with the number of images is one statement, fed with one JSON document.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.events import outbox
from flows.events.contents import Outcome
from flows.last_words import printable
from flows.launchers.base import UnitResult
from flows.log_of_failure import log_of_failure
from flows.units import PlannedUnit
from fractal_models.database import saved_id
from fractal_models.image_list import remove_images, write_images
from fractal_models.images import Image
from fractal_models.tables import HistoryImageCache, HistoryRun, HistoryUnit, JobV2
from fractal_models.tables.columns import now

Status = Literal["done", "failed"]

_UNIT_ID = col(HistoryUnit.id)


async def end_job(
    session: AsyncSession,
    job_id: int,
    *,
    outcome: Outcome,
    reason: str,
    story: str = "",
    executor_error_log: str | None = None,
    only_without_flow_run: bool = False,
) -> bool:
    """Give a submitted job its end, with its log and the event that tells of it, and commit.

    `story` is what was logged while it ran. False if it had ended before or,
    `only_without_flow_run`, has one by now: nothing changes.
    """
    ended_at = now()
    end = (
        update(JobV2)
        .where(col(JobV2.id) == job_id, col(JobV2.status) == "submitted")
        .values(
            status="done" if outcome == "done" else "failed",
            end_timestamp=ended_at,
            log=story if outcome == "done" else log_of_failure(job_id, reason, story),
            executor_error_log=executor_error_log,
        )
    )
    if only_without_flow_run:
        end = end.where(col(JobV2.flow_run_id).is_(None))
    ended = await session.execute(end.returning(col(JobV2.id)))
    found = ended.first() is not None
    if found:
        await outbox.write_job_event(session, job_id, outcome, occurred=ended_at, reason=reason)
    await session.commit()
    return found


@dataclass(frozen=True)
class WaitingLine:
    """A line on why a job waits, and what its log was when that was found out."""

    job_id: int
    before: str | None
    line: str


async def tell_waiting(session: AsyncSession, lines: Sequence[WaitingLine]) -> set[int]:
    """Append to the logs of submitted jobs, and commit. The ids of those that nobody else told."""
    if not lines:
        return set()
    told = await session.execute(_TELL_WAITING, {"lines": [asdict(line) for line in lines]})
    found = set(told.scalars())
    await session.commit()
    return found


_TELL_WAITING = text(
    """
    UPDATE jobv2 SET log = coalesce(log, '') || told.line
    FROM jsonb_to_recordset(:lines) AS told (job_id int, before text, line text)
    WHERE jobv2.id = told.job_id AND status = 'submitted' AND log IS NOT DISTINCT FROM told.before
    RETURNING jobv2.id
    """
).bindparams(bindparam("lines", type_=JSONB))


async def request_stop(session: AsyncSession, job_id: int, reason: str) -> None:
    """Tell a job to stop, and commit. Who executes it asks now and then. The first reason stays."""
    await session.execute(
        update(JobV2)
        .where(col(JobV2.id) == job_id, col(JobV2.stop_reason).is_(None))
        .values(stop_reason=reason)
    )
    await session.commit()


async def stop_reason(session: AsyncSession, job_id: int) -> str | None:
    """Why a job was told to stop; None if it was not."""
    found = await session.exec(select(JobV2.stop_reason).where(JobV2.id == job_id))
    return found.first()


async def reopen_job(session: AsyncSession, job_id: int) -> bool:
    """Give a failed job back its life, to go on after what it has recorded, and commit.

    False if it has not failed. What it wants to run on must be free, as for a new job.

    Raises:
        IntegrityError: another job on its dataset has not ended.
    """
    reopened = await session.execute(_REOPEN_JOB, {"job_id": job_id})
    found = reopened.first() is not None
    await session.commit()
    return found


async def runs_of_job(session: AsyncSession, job_id: int) -> list[HistoryRun]:
    """The HistoryRuns that a job has so far, the oldest first."""
    found = await session.exec(
        select(HistoryRun).where(HistoryRun.job_id == job_id).order_by(col(HistoryRun.id))
    )
    return list(found)


def order_of(run: HistoryRun) -> int:
    """The place in the workflow of the task that was run."""
    order: int = run.workflowtask_dump["order"]
    return order


async def image_statuses(
    session: AsyncSession, dataset_id: int | None, workflow_task_id: int
) -> dict[str, str]:
    """The status of the latest unit of a workflow task on each image that it ran on, by URL."""
    found = await session.execute(
        select(HistoryImageCache.zarr_url, HistoryUnit.status)
        .join(HistoryUnit, col(HistoryImageCache.latest_history_unit_id) == _UNIT_ID)
        .where(
            HistoryImageCache.dataset_id == dataset_id,
            HistoryImageCache.workflowtask_id == workflow_task_id,
        )
    )
    return dict(found.tuples().all())


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


@dataclass(frozen=True, slots=True)
class RecordedUnit:
    """A unit that an executor before this one wrote down."""

    id: int
    status: str
    logfile: str
    zarr_urls: list[str]


async def units_of_run(session: AsyncSession, run_id: int) -> list[RecordedUnit]:
    """The units of a run so far, in the order in which they were written."""
    found = await session.execute(
        select(HistoryUnit.id, HistoryUnit.status, HistoryUnit.logfile, HistoryUnit.zarr_urls)
        .where(HistoryUnit.history_run_id == run_id)
        .order_by(_UNIT_ID)
    )
    return [RecordedUnit(*row) for row in found]


async def images_done(session: AsyncSession, run_ids: Sequence[int]) -> set[str]:
    """The images of the units of these runs that are done."""
    found = await session.exec(
        select(HistoryUnit.zarr_urls).where(
            col(HistoryUnit.history_run_id).in_(run_ids), HistoryUnit.status == "done"
        )
    )
    return {url for urls in found for url in urls}


async def create_units(
    session: AsyncSession,
    run_id: int,
    units: Sequence[PlannedUnit],
    logfiles: Sequence[str],
    *,
    point_images: bool,
) -> list[int]:
    """Write and commit the units of a phase, as submitted; their ids, in the same order.

    With `point_images`, the units of the run become the latest ones of their images.
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
    return [ids[logfile] for logfile in logfiles]


def log_path(units_dir: Path, unit: PlannedUnit) -> Path:
    """Where the unit runner writes the output of a unit."""
    return units_dir / f"{unit.name}.log"


async def begin_attempt(session: AsyncSession, unit_ids: Sequence[int], attempt: int) -> None:
    """Note and commit that units run again."""
    await session.execute(update(HistoryUnit).where(_UNIT_ID.in_(unit_ids)).values(attempt=attempt))
    await session.commit()


@dataclass(frozen=True, slots=True)
class EndedUnit:
    """A HistoryUnit's end: its row, what becomes of its images, and what the runner measured.

    The init unit of a compound task stays `submitted`: its images are not done yet.
    """

    id: int
    status: Literal["submitted", "done", "failed"]
    result: UnitResult | None  # None: it never ran, or was lost with its runner


async def record_units(session: AsyncSession, job_id: int, units: Iterable[EndedUnit]) -> None:
    """Write and commit the ends of units; one that has an end keeps it.

    A new end is progress: the job may be started again as often as at its beginning.
    """
    rows = [_unit_row(unit) for unit in units]
    recorded = await session.execute(_UPDATE_UNITS, {"units": rows})
    if recorded.first() is not None:
        await session.execute(_PROGRESS, {"job_id": job_id})
    await session.commit()


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


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a workflow task ended, and what it did to the image list."""

    status: Status
    num_units: int
    num_failed_units: int
    written: Sequence[Image]  # the images that are new or updated
    num_new_images: int
    removed: Sequence[str]
    all_units_fail: bool  # also those that succeeded, as what they made together is not kept
    reason: str  # why it failed

    @property
    def counts(self) -> dict[str, int]:
        """Of its units and images, as histories and events tell them."""
        return {
            "num_units": self.num_units,
            "num_failed_units": self.num_failed_units,
            "num_new_images": self.num_new_images,
        }


async def close_run(
    session: AsyncSession, job: JobV2, run_id: int, workflow_task: dict[str, Any], end: RunEnd
) -> None:
    """Record the end of a workflow task in one transaction: wholly or not at all, and once.

    That is the HistoryRun's status, the units (those that have not ended, fail), the dataset's
    images and history, the accounting, that the job made progress, and the event of it all.
    """
    closed = await session.execute(_CLOSE_RUN, {"run_id": run_id, "status": end.status})
    if closed.first() is None:
        return  # before, by an executor that did not live to hear of it
    ended_at = now()
    await session.execute(_END_UNITS, {"run_id": run_id, "all_fail": end.all_units_fail})
    await _close_in_dataset(session, job, run_id, workflow_task, end, ended_at)
    counts = {"num_tasks": end.num_units, "num_new_images": end.num_new_images}
    await session.execute(_ACCOUNT, {"job_id": job.id, "timestamp": ended_at, **counts})
    await session.execute(_PROGRESS, {"job_id": job.id})
    await outbox.write_workflow_task_event(
        session,
        saved_id(job),
        workflow_task,
        end.status,
        occurred=ended_at,
        reason=printable(end.reason),
        counts=end.counts,
    )
    await session.commit()


async def _close_in_dataset(
    session: AsyncSession,
    job: JobV2,
    run_id: int,
    workflow_task: dict[str, Any],
    end: RunEnd,
    ended_at: datetime,
) -> None:
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
        **end.counts,
        "timestamp_ended": ended_at.isoformat(),
    }
    await session.execute(_APPEND_HISTORY, {"dataset_id": job.dataset_id, "entry": [entry]})
    if end.written:
        await write_images(session, job.dataset_id, end.written)
    if end.removed:
        await remove_images(session, job.dataset_id, end.removed)


async def account_slurm(
    session: AsyncSession, job_id: int, resource_id: int | None, slurm_job_id: int
) -> None:
    """Record and commit, once, that a job submitted a SLURM job."""
    ids = {"job_id": job_id, "resource_id": resource_id, "slurm_job_id": slurm_job_id}
    await session.execute(_ACCOUNT_SLURM, {**ids, "timestamp": now()})
    await session.commit()


async def abandon_runs(session: AsyncSession, job: JobV2) -> None:
    """Record as failed what a job began and nobody will end; its image list stays as it is."""
    for run in await runs_of_job(session, saved_id(job)):
        if run.status == "submitted":
            units = await units_of_run(session, saved_id(run))
            end = RunEnd(
                status="failed",
                num_units=len(units),
                num_failed_units=len(units),
                written=(),
                num_new_images=0,
                removed=(),
                all_units_fail=True,
                reason="It was interrupted, and the job did not go on with it.",
            )
            await close_run(session, job, saved_id(run), run.workflowtask_dump, end)


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
    AND historyunit.status = 'submitted' AND historyunit.ended_at IS NULL
    RETURNING historyunit.id
    """
).bindparams(bindparam("units", type_=JSONB))

_REOPEN_JOB = text(
    """
    UPDATE jobv2 SET status = 'submitted', end_timestamp = NULL, log = NULL,
        executor_error_log = NULL, stop_reason = NULL, restarts = 0, retried_after = (
            SELECT coalesce(max(id), 0) FROM historyrun WHERE job_id = jobv2.id)
    WHERE id = :job_id AND status = 'failed'
    RETURNING id
    """
)

_PROGRESS = text("UPDATE jobv2 SET restarts = 0 WHERE id = :job_id AND restarts > 0")

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

_CLOSE_RUN = text(
    "UPDATE historyrun SET status = :status WHERE id = :run_id AND status = 'submitted' "
    "RETURNING id"
)

# An init unit that did its part has waited for the others; what has no end by now has failed.
_END_UNITS = text(
    """
    UPDATE historyunit
    SET status = CASE WHEN NOT :all_fail AND exit_code = 0 THEN 'done' ELSE 'failed' END
    WHERE history_run_id = :run_id AND (status = 'submitted' OR (:all_fail AND status = 'done'))
    """
)

_APPEND_HISTORY = text(
    "UPDATE datasetv2 SET history = history || :entry WHERE id = :dataset_id"
).bindparams(bindparam("entry", type_=JSONB))

_ACCOUNT_SLURM = text(
    """
    INSERT INTO accountingrecordslurm
        (user_id, timestamp, slurm_job_ids, fractal_job_id, resource_id)
    SELECT user_oauth.id, :timestamp, ARRAY[CAST(:slurm_job_id AS int)], jobv2.id, :resource_id
    FROM jobv2 JOIN user_oauth ON user_oauth.email = jobv2.user_email
    WHERE jobv2.id = :job_id AND NOT EXISTS (
        SELECT FROM accountingrecordslurm
        WHERE fractal_job_id = :job_id AND slurm_job_ids = ARRAY[CAST(:slurm_job_id AS int)])
    """
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
