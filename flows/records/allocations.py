"""SQL of what was reserved for the units of jobs, and what they used."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.units.runners import Runner
from fractal_models.schemas.usage import Usage, UsageBy

# What a job has done before it is retried stays, and may have been read before its end.
_RECORD = text(
    """
    INSERT INTO allocation (job_id, batch, runner, history_run_id, resource_id, slurm_job_id, host,
        num_units, at_once, cpus, mem_mb, gpus, started_at, ended_at, cpu_seconds, gb_seconds)
    SELECT jobv2.id, batch, runner, history_run_id, projectv2.resource_id, slurm_job_id, host,
        num_units, at_once, cpus, mem_mb, gpus, started_at, ended_at, cpu_seconds, gb_seconds
    FROM jsonb_to_recordset(:runners) AS found(batch text, runner int, history_run_id int,
        slurm_job_id text, host text, num_units int, at_once int, cpus int, mem_mb bigint, gpus int,
        started_at timestamptz, ended_at timestamptz, cpu_seconds float, gb_seconds float)
    JOIN jobv2 ON jobv2.id = :job_id
    LEFT JOIN projectv2 ON projectv2.id = jobv2.project_id
    ON CONFLICT (job_id, batch, runner) DO UPDATE SET
        num_units = excluded.num_units, ended_at = excluded.ended_at,
        cpu_seconds = excluded.cpu_seconds, gb_seconds = excluded.gb_seconds
    """
).bindparams(bindparam("runners", type_=JSONB))


async def record_allocations(
    session: AsyncSession, job_id: int, runners: Sequence[Runner], runs: Mapping[str, int]
) -> None:
    """Record the runners of a job, and commit; `runs` are its HistoryRuns by folder of units."""
    if runners:
        rows = [_row(runner, runs) for runner in runners]
        await session.execute(_RECORD, {"job_id": job_id, "runners": rows})
        await session.commit()


def _row(runner: Runner, runs: Mapping[str, int]) -> dict[str, Any]:
    reserved = runner.reserved
    return {
        "batch": runner.batch,
        "runner": runner.number,
        "history_run_id": runs.get(runner.batch.partition("/")[0]),
        "slurm_job_id": reserved and reserved.job,
        "host": runner.host,
        "num_units": runner.num_units,
        "at_once": runner.at_once,
        "cpus": reserved and reserved.cpus,
        "mem_mb": reserved and reserved.mem_mb,
        "gpus": reserved and reserved.gpus,
        "started_at": runner.started_at.isoformat(),
        "ended_at": runner.ended_at.isoformat(),
        "cpu_seconds": runner.cpu_seconds,
        "gb_seconds": runner.gb_seconds,
    }


# By what usage is summed up: an expression, and what must be joined for it. Who is in several
# groups counts in each of them.
_BY: dict[UsageBy, tuple[str, str]] = {
    "user": ("jobv2.user_email", ""),
    "group": (
        "usergroup.name",
        """
        LEFT JOIN user_oauth ON user_oauth.email = jobv2.user_email
        LEFT JOIN linkusergroup ON linkusergroup.user_id = user_oauth.id
        LEFT JOIN usergroup ON usergroup.id = linkusergroup.group_id
        """,
    ),
    "project": ("jobv2.project_dump->>'id' || ' ' || (jobv2.project_dump->>'name')", ""),
    "resource": ("resource.name", "LEFT JOIN resource ON resource.id = allocation.resource_id"),
    "month": ("to_char(allocation.started_at AT TIME ZONE 'UTC', 'YYYY-MM')", ""),
}
_USAGE = """
    SELECT {columns}
        count(DISTINCT allocation.job_id) AS num_jobs,
        sum(num_units)::bigint AS num_units,
        sum(hours) AS runner_hours,
        coalesce(sum(cpus * hours), 0) AS cpu_hours_reserved,
        sum(cpu_seconds) / 3600 AS cpu_hours_used,
        coalesce(sum(mem_mb * hours) / 1024, 0) AS gb_hours_reserved,
        sum(gb_seconds) / 3600 AS gb_hours_used,
        coalesce(sum(gpus * hours), 0) AS gpu_hours_reserved
    FROM allocation
    JOIN jobv2 ON jobv2.id = allocation.job_id
    CROSS JOIN LATERAL (
        SELECT extract(epoch FROM ended_at - started_at)::float / 3600 AS hours
    ) AS lasted
    {joins}
    WHERE (CAST(:since AS timestamptz) IS NULL OR allocation.started_at >= :since)
        AND (CAST(:until AS timestamptz) IS NULL OR allocation.started_at < :until)
    {grouped}
    """


async def usage(
    session: AsyncSession,
    by: Sequence[UsageBy],
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Usage]:
    """What was reserved and used, summed up by these, of what began from `since` until `until`."""
    named = ", ".join(f'{_BY[each][0]} AS "{each}"' for each in by)
    numbers = ", ".join(str(number) for number in range(1, len(by) + 1))
    query = _USAGE.format(
        columns=f"{named}," if by else "",
        joins=" ".join(_BY[each][1] for each in by),
        grouped=f"GROUP BY {numbers} ORDER BY {numbers}" if by else "HAVING count(*) > 0",
    )
    found = await session.execute(text(query), {"since": since, "until": until})
    return [Usage.model_validate(row._mapping) for row in found]
