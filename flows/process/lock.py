"""One process per job: a lock in PostgreSQL, held as long as the process lives.

Activities of task groups, e.g. collections, have such locks too.

An advisory lock belongs to a connection. It becomes free when PostgreSQL notices that the holder is
gone: at once if the process ends, within a minute if its host vanishes. So if the lock of a
submitted job is free, no process runs the job.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import URL, text
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.reports.sentences import phrase, words_of
from fractal_models.database import connect
from fractal_models.errors import FractalError

# The first of the two keys of these locks; the second is the id of the job or of the activity.
_JOBS, _ACTIVITIES = 0x46524A42, 0x46524143

# PostgreSQL probes a silent host after 10 s, and gives it up after 30 s more. A host that does not
# confirm data is not probed, so it gets a limit of its own; without that, the kernel would retry
# for 15 minutes.
_KEEP_ALIVE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
_PING_SECONDS, _PATIENCE_SECONDS = 5.0, 20.0
# The reconciler may hold the lock for a moment after it started a job again, so a job waits for it.
_RECONCILER_SECONDS, _RETRY_SECONDS = 3.0, 0.1

_watching: set[asyncio.Task[None]] = set()  # an event loop does not keep its tasks


class LockedError(FractalError):
    """Another process runs this job or activity."""


async def lock_job(url: URL, job_id: int, on_lost: Callable[[str], object]) -> None:
    """Take the lock of a job, and hold it as long as this event loop runs.

    So the hooks, which run after the flow, are under the lock too. `on_lost` is called, with the
    reason, if the lock is lost earlier.

    Raises:
        LockedError: another process holds the lock.
        DatabaseAwayError: PostgreSQL does not answer.
    """
    await _lock(url, _JOBS, job_id, f"fractal job {job_id}", on_lost)


@asynccontextmanager
async def holding_job(url: URL, job_id: int) -> AsyncIterator[None]:
    """Hold the lock of a job during a block, in which no other process can run the job.

    Raises:
        LockedError, DatabaseAwayError: as `lock_job`.
    """
    connection = await _locked_connection(url, _JOBS, job_id, f"fractal reconciler, job {job_id}")
    try:
        yield
    finally:
        await connection.close(timeout=_PATIENCE_SECONDS)


async def free_job(session: AsyncSession, job_id: int) -> bool:
    """Take the lock from a process that does not react, by ending its connection to PostgreSQL.

    If that process wakes up, it notices the lost connection, and ends. Returns False if nobody
    holds the lock.
    """
    found = await session.execute(_FREE, {"kind": _JOBS, "id": job_id})
    return found.first() is not None


async def lock_activity(url: URL, activity_id: int, on_lost: Callable[[str], object]) -> None:
    """Take the lock of an activity; parameters and errors are those of `lock_job`."""
    await _lock(url, _ACTIVITIES, activity_id, f"fractal activity {activity_id}", on_lost)


async def _lock(url: URL, kind: int, id_: int, what: str, on_lost: Callable[[str], object]) -> None:
    connection = await _locked_connection(url, kind, id_, what, seconds=_RECONCILER_SECONDS)
    _watching.add(asyncio.create_task(_watch(connection, on_lost)))


async def _locked_connection(
    url: URL, kind: int, id_: int, what: str, *, seconds: float = 0.0
) -> asyncpg.Connection:
    """A connection that holds the lock. Waits at most `seconds` for the lock."""
    settings = {**_KEEP_ALIVE, "application_name": what}
    connection = await connect(url, server_settings=settings)
    deadline = time.monotonic() + seconds
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", kind, id_):
        if time.monotonic() >= deadline:
            await connection.close()
            raise LockedError(f"Another process executes {what}.")
        await asyncio.sleep(_RETRY_SECONDS)
    return connection


async def _watch(connection: asyncpg.Connection, on_lost: Callable[[str], object]) -> None:
    """Call `on_lost` when the connection is lost, also if the network does not report the loss."""

    def closed(_: object) -> None:
        on_lost("PostgreSQL closed its connection")

    connection.add_termination_listener(closed)
    try:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            await connection.execute("SELECT 1", timeout=_PATIENCE_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        on_lost(f"PostgreSQL does not answer ({phrase(words_of(error))})")
    finally:
        connection.remove_termination_listener(closed)


async def locked_jobs(session: AsyncSession) -> set[int]:
    """The ids of the jobs that a process runs now."""
    return await _locked(session, _JOBS)


async def locked_activities(session: AsyncSession) -> set[int]:
    """The ids of the activities that a process runs now."""
    return await _locked(session, _ACTIVITIES)


async def _locked(session: AsyncSession, kind: int) -> set[int]:
    found = await session.execute(_LOCKED, {"kind": kind})
    return set(found.scalars())


_FREE = text(
    """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND classid = :kind AND objid = :id AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)

_LOCKED = text(
    """
    SELECT objid::int FROM pg_locks
    WHERE locktype = 'advisory' AND classid = :kind AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)
