"""SQL of what is watched: open jobs, counts of what has ended, signs of life of workers."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from sqlalchemy import ARRAY, Integer, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel.ext.asyncio.session import AsyncSession

Ended = tuple[str, str]  # an outcome, and what failed it: "" if nothing did

# Sorted, so that two who count at the same time wait for each other, and no third way round.
_COUNT = text(
    """
    INSERT INTO tally (resource_id, what, outcome, cause, number)
    SELECT projectv2.resource_id, :what, counted.outcome, counted.cause, counted.number
    FROM jsonb_to_recordset(:counts) AS counted(outcome text, cause text, number bigint)
    JOIN jobv2 ON jobv2.id = :job_id
    JOIN projectv2 ON projectv2.id = jobv2.project_id
    ORDER BY counted.outcome, counted.cause
    ON CONFLICT (resource_id, what, outcome, cause)
    DO UPDATE SET number = tally.number + excluded.number
    """
).bindparams(bindparam("counts", type_=JSONB))


async def count_ended(
    session: AsyncSession, job_id: int, what: Literal["job", "unit"], counts: Mapping[Ended, int]
) -> None:
    """Count a job that has ended, or units of it."""
    rows = [
        {"outcome": outcome, "cause": cause, "number": number}
        for (outcome, cause), number in counts.items()
    ]
    await session.execute(_COUNT, {"job_id": job_id, "what": what, "counts": rows})


class Tallied(NamedTuple):
    """How many jobs or units have ended so on a resource."""

    resource: str
    what: str
    outcome: str
    cause: str
    number: int


async def tallies(session: AsyncSession) -> list[Tallied]:
    """All counts of what has ended."""
    found = await session.execute(
        text(
            """
            SELECT resource.name, what, outcome, cause, number
            FROM tally JOIN resource ON resource.id = resource_id
            ORDER BY resource.name, what, outcome, cause
            """
        )
    )
    return [Tallied(*row) for row in found]


class OpenJobs(NamedTuple):
    """The submitted jobs of a resource: how many, and for how long the oldest waits."""

    resource: str
    running: int
    waiting: int
    oldest_waiting_seconds: float


_OPEN_JOBS = text(
    """
    SELECT resource.name, count(*) FILTER (WHERE jobs.runs), count(*) FILTER (WHERE NOT jobs.runs),
        coalesce(max(jobs.seconds) FILTER (WHERE NOT jobs.runs), 0)
    FROM resource
    LEFT JOIN (
        SELECT resource_id, jobv2.id = ANY(:executed) AS runs,
            extract(epoch FROM now() - jobv2.start_timestamp)::float AS seconds
        FROM jobv2 JOIN projectv2 ON projectv2.id = jobv2.project_id
        WHERE jobv2.status = 'submitted'
    ) AS jobs ON jobs.resource_id = resource.id
    GROUP BY resource.name ORDER BY resource.name
    """
).bindparams(bindparam("executed", type_=ARRAY(Integer)))


async def open_jobs(session: AsyncSession, executed: Collection[int]) -> list[OpenJobs]:
    """The submitted jobs of each resource; a process executes some of them."""
    found = await session.execute(_OPEN_JOBS, {"executed": list(executed)})
    return [OpenJobs(*row) for row in found]


class Silence(NamedTuple):
    """For how long a part of a resource's worker has not done its work."""

    resource: str
    part: str
    seconds: float


async def silences(session: AsyncSession) -> list[Silence]:
    """Of each part of each worker that there ever was."""
    found = await session.execute(
        text(
            """
            SELECT resource.name, part, extract(epoch FROM now() - answered)::float
            FROM signoflife JOIN resource ON resource.id = resource_id
            ORDER BY resource.name, part
            """
        )
    )
    return [Silence(*row) for row in found]


_SIGN = text(
    """
    INSERT INTO signoflife (resource_id, part, answered)
    SELECT resource.id, silent.part, now() - make_interval(secs => silent.seconds)
    FROM jsonb_to_recordset(:silences) AS silent(part text, seconds float)
    JOIN resource ON resource.work_pool = :pool
    ORDER BY silent.part
    ON CONFLICT (resource_id, part)
    DO UPDATE SET answered = greatest(signoflife.answered, excluded.answered)
    """
).bindparams(bindparam("silences", type_=JSONB))


async def sign(session: AsyncSession, pool: str, silences: Mapping[str, float]) -> None:
    """Note how many seconds ago the parts of a worker did their work, and commit."""
    rows = [{"part": part, "seconds": seconds} for part, seconds in silences.items()]
    await session.execute(_SIGN, {"pool": pool, "silences": rows})
    await session.commit()


_ATTENDED = text(
    """
    SELECT EXISTS (
        SELECT FROM signoflife JOIN resource ON resource.id = resource_id
        WHERE work_pool = :pool AND part = 'worker'
            AND answered BETWEEN now() - make_interval(secs => :seconds) AND now()
    )
    """
)


async def is_attended(session: AsyncSession, pool: str, seconds: float) -> bool:
    """Whether a worker of this work pool did its work within so many seconds."""
    found = await session.execute(_ATTENDED, {"pool": pool, "seconds": seconds})
    return bool(found.scalar())


async def folders(session: AsyncSession) -> list[str]:
    """The folders that resources have on this side, for jobs and for tasks."""
    found = await session.execute(
        text("SELECT jobs_local_dir FROM resource UNION SELECT tasks_local_dir FROM resource")
    )
    return sorted(found.scalars())
