"""SQL of HistoryRuns, and of everything that is recorded when a workflow task ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records import outbox
from flows.records.jobs import note_progress
from flows.records.units import units_of_run
from flows.reports.text import printable
from fractal_models.database import analyse, saved_id
from fractal_models.image_list import IMAGE_TABLES, remove_images, write_images
from fractal_models.images import Image
from fractal_models.tables import HistoryRun, JobV2
from fractal_models.tables.columns import now

Status = Literal["done", "failed"]


async def runs_of_job(session: AsyncSession, job_id: int) -> list[HistoryRun]:
    """The HistoryRuns that a job has so far, oldest first."""
    found = await session.exec(
        select(HistoryRun).where(HistoryRun.job_id == job_id).order_by(col(HistoryRun.id))
    )
    return list(found)


def order_of(run: HistoryRun) -> int:
    """The position in the workflow of the task of this HistoryRun."""
    order: int = run.workflowtask_dump["order"]
    return order


async def open_run(
    session: AsyncSession, job: JobV2, workflow_task: dict[str, Any], num_available_images: int
) -> int:
    """Write and commit the HistoryRun of a workflow task (as the job keeps it). Returns its id."""
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
        """The numbers of units and images, as histories and events contain them."""
        return {
            "num_units": self.num_units,
            "num_failed_units": self.num_failed_units,
            "num_new_images": self.num_new_images,
        }


_CLOSE_RUN = text(
    "UPDATE historyrun SET status = :status WHERE id = :run_id AND status = 'submitted' "
    "RETURNING id"
)

# An init unit that succeeded is still `submitted`: it waits for the compute units. All other units
# without an end have failed.
_END_UNITS = text(
    """
    UPDATE historyunit
    SET status = CASE WHEN NOT :all_fail AND exit_code = 0 THEN 'done' ELSE 'failed' END
    WHERE history_run_id = :run_id AND (status = 'submitted' OR (:all_fail AND status = 'done'))
    """
)

# The user is found through the job's row, because the email read at the start can have changed.
_ACCOUNT = text(
    """
    INSERT INTO accountingrecord (user_id, timestamp, num_tasks, num_new_images)
    SELECT user_oauth.id, :timestamp, :num_tasks, :num_new_images
    FROM jobv2 JOIN user_oauth ON user_oauth.email = jobv2.user_email
    WHERE jobv2.id = :job_id
    """
)


async def close_run(
    session: AsyncSession, job: JobV2, run_id: int, workflow_task: dict[str, Any], end: RunEnd
) -> None:
    """Record the end of a workflow task in one transaction, and only once.

    Recorded are the HistoryRun's status, the units (those that have not ended have failed), the
    images and history of the dataset, the accounting, that the job made progress, and an event.
    """
    closed = await session.execute(_CLOSE_RUN, {"run_id": run_id, "status": end.status})
    if closed.first() is None:
        return  # before, by an executor that did not live to hear of it
    ended_at = now()
    await session.execute(_END_UNITS, {"run_id": run_id, "all_fail": end.all_units_fail})
    await _close_in_dataset(session, job, run_id, workflow_task, end, ended_at)
    counts = {"num_tasks": end.num_units, "num_new_images": end.num_new_images}
    await session.execute(_ACCOUNT, {"job_id": job.id, "timestamp": ended_at, **counts})
    await note_progress(session, saved_id(job))
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
    await analyse(session, len(end.written) + len(end.removed), *IMAGE_TABLES)


_APPEND_HISTORY = text(
    "UPDATE datasetv2 SET history = history || :entry WHERE id = :dataset_id"
).bindparams(bindparam("entry", type_=JSONB))


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


async def abandon_runs(session: AsyncSession, job: JobV2) -> None:
    """Record as failed each HistoryRun of a job that has not ended and that no process will finish.

    The image list stays as it is.
    """
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
