"""SQL that sums up what a job used: time, memory and units."""

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.reports.summary import Work

_WORK = text(
    """
    SELECT
        CASE WHEN run.id IS NOT NULL THEN min(concat_ws(' ', run.workflowtask_dump->>'order',
            coalesce(nullif(run.workflowtask_dump->>'alias', ''),
                     run.workflowtask_dump->'task'->>'name'))) END,
        CASE WHEN run.id IS NOT NULL THEN coalesce(CASE
            WHEN min(run.workflowtask_dump->>'task_type') LIKE 'converter%' THEN 0
            WHEN min(run.workflowtask_dump->>'task_type') = 'compound'
                THEN max(cardinality(unit.zarr_urls))  -- those of the init unit
            ELSE sum(cardinality(unit.zarr_urls)) END, 0)::int END,
        count(unit.id),
        count(*) FILTER (WHERE unit.status = 'done'),
        count(*) FILTER (WHERE unit.status = 'failed'),
        coalesce(sum(unit.attempt - 1), 0),
        CAST(extract(epoch FROM max(unit.ended_at) - min(run.timestamp_started)) AS float),
        sum(unit.cpu_seconds),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY unit.max_rss_kb),
        max(unit.max_rss_kb)
    FROM historyrun run LEFT JOIN historyunit unit ON unit.history_run_id = run.id
    WHERE run.job_id = :job_id
    GROUP BY ROLLUP (run.id)
    ORDER BY run.id NULLS LAST
    """
)


async def work_of_job(session: AsyncSession, job_id: int) -> list[Work]:
    """The work of each workflow task that a job began, then the total; empty if it began none."""
    rows = await session.execute(_WORK, {"job_id": job_id})
    works = [Work(*row) for row in rows]
    return works if len(works) > 1 else []
