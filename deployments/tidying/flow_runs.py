"""Flow runs of Fractal that ended long ago, with all that Prefect's database has of them.

Prefect's server removes events by itself, after a week. It removes flow runs only if it is told to,
then those of everybody, and also what Fractal still needs; its REST API removes 50 at a time, and
leaves their artifacts. So they are removed here, in the way of its server: a transaction for some
hundred flow runs, in which those that somebody else is changing are left for the next time.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.tidying.amount import Amount
from flows.engine.publication import ENTRYPOINTS

# Of the connection: rows are found along indexes, whatever PostgreSQL knows of their number.
ALONG_INDEXES = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

_AT_ONCE = 200
_ENDED = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
_FIRST = (datetime.fromtimestamp(0, UTC), UUID(int=0))

_PAGE = """
    SELECT run.end_time, run.id, pool.name AS pool
    FROM flow_run run
    JOIN flow ON flow.id = run.flow_id
    LEFT JOIN work_queue queue ON queue.id = run.work_queue_id
    LEFT JOIN work_pool pool ON pool.id = queue.work_pool_id
    WHERE flow.name = ANY($1) AND run.state_type::text = ANY($2) AND run.end_time < $3
    AND (run.end_time, run.id) > ($4, $5)
    ORDER BY run.end_time, run.id
    LIMIT $6
"""

# Whether what a flow run was made for ended before then: its job, or its activity.
_KNOWN = text(
    """
    SELECT flow_run_id, status <> 'submitted' AND end_timestamp < :before
    FROM jobv2 WHERE flow_run_id = ANY(:ids)
    UNION ALL
    SELECT flow_run_id, status IN ('OK', 'failed') AND timestamp_ended < :before
    FROM taskgroupactivityv2 WHERE flow_run_id = ANY(:ids)
    """
)

# Those that have still ended then; nobody else changes them before the transaction ends.
_LOCK = """
    SELECT id FROM flow_run
    WHERE id = ANY($1) AND state_type::text = ANY($2) AND end_time < $3
    FOR UPDATE SKIP LOCKED
"""

_EVENTS = """
    SELECT event_id FROM event_resources
    WHERE resource_id IN (SELECT 'prefect.flow-run.' || id FROM unnest($1::uuid[]) AS id)
"""
# The rows of each kind: of the table that is counted, then those that belong to them.
_KINDS = {
    "flow runs": {
        "flow_run": "id = ANY($1)",
        "flow_run_state": "flow_run_id = ANY($1)",
        "flow_run_input": "flow_run_id = ANY($1)",
    },
    "task runs": {
        "task_run": "flow_run_id = ANY($1)",
        "task_run_state": "task_run_id IN (SELECT id FROM task_run WHERE flow_run_id = ANY($1))",
    },
    "log lines": {"log": "flow_run_id = ANY($1)"},
    "artifacts": {
        "artifact": "flow_run_id = ANY($1)",
        "artifact_collection": """
            key IN (SELECT key FROM artifact WHERE flow_run_id = ANY($1))
            AND latest_id IN (SELECT id FROM artifact WHERE flow_run_id = ANY($1))
        """,
    },
    "events": {
        "events": f"id IN ({_EVENTS})",
        "event_resources": f"event_id IN ({_EVENTS})",
    },
}
_ROWS = {table: rows for tables in _KINDS.values() for table, rows in tables.items()}
# In this order; what is left then goes with the flow runs.
_DELETED = ("events", "event_resources", "log", "artifact_collection", "artifact", "flow_run")


async def tidy_flow_runs(
    prefect: asyncpg.Connection,
    sessions: async_sessionmaker[AsyncSession],
    pools: set[str],
    before: datetime,
    *,
    dry_run: bool,
) -> dict[str, Amount]:
    """Remove the flow runs that ended before then, as did their jobs. How much there was, by kind.

    Those that no job has any more are removed, too, if they are of one of these work pools.
    """
    numbers, sizes = Counter[str](), Counter[str]()
    place = _FIRST
    while page := await prefect.fetch(_PAGE, list(ENTRYPOINTS), _ENDED, before, *place, _AT_ONCE):
        place = page[-1]["end_time"], page[-1]["id"]
        known = await _known(sessions, [run["id"] for run in page], before)
        over = [run["id"] for run in page if known.get(run["id"], run["pool"] in pools)]
        async with prefect.transaction():
            if not dry_run:
                locked = await prefect.fetch(_LOCK, over, _ENDED, before)
                over = [run["id"] for run in locked]
            for table in _ROWS:
                number, size = await _measure(prefect, table, over)
                numbers[table] += number
                sizes[table] += size
            for table in () if dry_run else _DELETED:
                await prefect.execute(f"DELETE FROM {table} WHERE {_ROWS[table]}", over)
    if numbers["flow_run"] and not dry_run:
        # So that the room is used again at once, and the planner knows how little is left.
        await prefect.execute(f"VACUUM (ANALYZE) {', '.join(_ROWS)}")
    return {
        kind: Amount(numbers[next(iter(tables))], sum(sizes[table] for table in tables))
        for kind, tables in _KINDS.items()
    }


async def _known(
    sessions: async_sessionmaker[AsyncSession], ids: Sequence[UUID], before: datetime
) -> dict[UUID, bool]:
    """Of flow runs that have a job or an activity, whether that ended before then."""
    async with sessions() as session:
        found = await session.execute(_KNOWN, {"ids": ids, "before": before})
        return dict(found.tuples().all())


async def _measure(prefect: asyncpg.Connection, table: str, ids: Sequence[UUID]) -> tuple[int, int]:
    """How many rows of a table belong to these flow runs, and their bytes."""
    number, size = await prefect.fetchrow(
        f"SELECT count(*), coalesce(sum(pg_column_size(t.*)), 0)::bigint FROM {table} t "
        f"WHERE {_ROWS[table]}",
        ids,
    )
    return number, size
