"""SQL of a job as a whole: why it waits, that it must stop, how it ends, what it keeps as it is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import UUID as SQL_UUID
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.process.wakeups import wake_workers
from flows.records import observation, outbox
from flows.records.events import Outcome
from flows.reports.failure_log import log_of_failure
from fractal_models.errors import RefusedError
from fractal_models.tables import DatasetV2, JobV2, ProjectV2, WorkflowV2
from fractal_models.tables.columns import now

# What submitted jobs keep as it is, by its table.
_OF_JOBS = {
    ProjectV2: ("project", col(JobV2.project_id)),
    WorkflowV2: ("workflow", col(JobV2.workflow_id)),
    DatasetV2: ("dataset", col(JobV2.dataset_id)),
}


async def job_of(session: AsyncSession, flow_run_id: UUID) -> JobV2 | None:
    """The job of a flow run; None if it has none, or does not know of it yet."""
    found = await session.exec(select(JobV2).where(JobV2.flow_run_id == flow_run_id))
    return found.first()


_GIVE_FLOW_RUN = text(
    "UPDATE jobv2 SET flow_run_id = :flow_run_id WHERE id = :job_id "
    "AND (status = 'submitted' OR flow_run_id = :flow_run_id) RETURNING id"
).bindparams(bindparam("flow_run_id", type_=SQL_UUID))


async def give_flow_run(session: AsyncSession, job_id: int, flow_run_id: UUID) -> bool:
    """Note the flow run of a job, wake the workers for it, and commit.

    Returns False if the job has ended without it.
    """
    ids = {"job_id": job_id, "flow_run_id": flow_run_id}
    given = (await session.execute(_GIVE_FLOW_RUN, ids)).first() is not None
    await wake_workers(session)
    await session.commit()
    return given


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
    """Record the end of a submitted job, with its log and an event, and commit.

    `story` is what was logged while the job ran. With `only_without_flow_run`, a job that has a
    flow run by now is left alone. Returns False if nothing changed: the job had ended before, or it
    was left alone.
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
        await observation.count_ended(session, job_id, "job", {(outcome, ""): 1})
    await session.commit()
    return found


@dataclass(frozen=True)
class WaitingLine:
    """A line for the log that says why a job waits; `before` is the log when that was found out."""

    job_id: int
    before: str | None
    line: str


_TELL_WAITING = text(
    """
    UPDATE jobv2 SET log = coalesce(log, '') || told.line
    FROM jsonb_to_recordset(:lines) AS told (job_id int, before text, line text)
    WHERE jobv2.id = told.job_id AND status = 'submitted' AND log IS NOT DISTINCT FROM told.before
    RETURNING jobv2.id
    """
).bindparams(bindparam("lines", type_=JSONB))


async def tell_waiting(session: AsyncSession, lines: Sequence[WaitingLine]) -> set[int]:
    """Append the lines to the logs of submitted jobs, and commit. Returns the ids of these jobs.

    A job whose log is no longer as in `before` is left out: somebody else has told it.
    """
    if not lines:
        return set()
    told = await session.execute(_TELL_WAITING, {"lines": [asdict(line) for line in lines]})
    found = set(told.scalars())
    await session.commit()
    return found


async def request_stop(session: AsyncSession, job_id: int, reason: str) -> None:
    """Tell a job to stop, and commit. The process that runs the job asks for this now and then.

    If the job was told before, the first reason stays.
    """
    await session.execute(
        update(JobV2)
        .where(col(JobV2.id) == job_id, col(JobV2.stop_reason).is_(None))
        .values(stop_reason=reason)
    )
    await wake_workers(session)
    await session.commit()


async def stop_reason(session: AsyncSession, job_id: int) -> str | None:
    """The reason why a job was told to stop; None if it was not told to."""
    found = await session.exec(select(JobV2.stop_reason).where(JobV2.id == job_id))
    return found.first()


_REOPEN_JOB = text(
    """
    UPDATE jobv2 SET status = 'submitted', end_timestamp = NULL, log = NULL,
        executor_error_log = NULL, stop_reason = NULL, restarts = 0, retried_after = (
            SELECT coalesce(max(id), 0) FROM historyrun WHERE job_id = jobv2.id)
    WHERE id = :job_id AND status = 'failed'
    RETURNING id
    """
)


async def reopen(session: AsyncSession, job_id: int) -> bool:
    """Set a failed job to `submitted` again, and commit. It then continues after what is recorded.

    Returns False if the job has not failed. As for a new job, no other job may run on its dataset.

    Raises:
        IntegrityError: another job on its dataset has not ended.
    """
    reopened = await session.execute(_REOPEN_JOB, {"job_id": job_id})
    found = reopened.first() is not None
    await session.commit()
    return found


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


async def account_slurm(
    session: AsyncSession, job_id: int, resource_id: int | None, slurm_job_id: int
) -> None:
    """Record, only once, that a job submitted a SLURM job, and commit."""
    ids = {"job_id": job_id, "resource_id": resource_id, "slurm_job_id": slurm_job_id}
    await session.execute(_ACCOUNT_SLURM, {**ids, "timestamp": now()})
    await session.commit()


async def note_progress(session: AsyncSession, job_id: int) -> None:
    """Note that a job has made progress, which sets its number of restarts to 0 (not committed)."""
    await session.execute(
        update(JobV2).where(col(JobV2.id) == job_id, col(JobV2.restarts) > 0).values(restarts=0)
    )


# How the stop reason of a job begins that was given up because it made no progress.
GIVEN_UP = "Given up"


def outcome_of_stop(reason: str) -> Outcome:
    """The outcome of a job that was stopped for this reason: "failed" if it was given up."""
    return "failed" if reason.startswith(GIVEN_UP) else "stopped"


async def require_no_submitted_job(
    session: AsyncSession, owner: ProjectV2 | WorkflowV2 | DatasetV2
) -> None:
    """Keep new jobs away from a row until the transaction ends, if it has none now.

    The lock conflicts with the one that a new job's foreign key takes.

    Raises:
        RefusedError: one of its jobs has not ended.
    """
    table = type(owner)
    what, column = _OF_JOBS[table]
    await session.exec(select(table.id).where(table.id == owner.id).with_for_update())
    found = await session.exec(
        select(JobV2.id).where(column == owner.id, JobV2.status == "submitted")
    )
    if (job_id := found.first()) is not None:
        raise RefusedError(f"Job {job_id} uses {what} {owner.id}: wait for its end, or stop it.")
