"""SQL of what units of a task version needed: memory, CPU time, wall time; and how many there were.

A *task version* is a task of a package in one version, on one resource, whoever collected it. A
custom task, which has no package, is only itself.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Integer, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.units.plan import Component

# Older runs say little about what comes, and reading all of a large site would take long.
_LATEST_RUNS, _UNITS_OF_A_RUN = 20, 2000


@dataclass(frozen=True, slots=True)
class Spread:
    """How measured values are spread: a tenth of them is below `low`, a tenth above `high`."""

    low: float
    median: float
    high: float
    mean: float
    highest: float


@dataclass(frozen=True, slots=True)
class Need:
    """What the units of one component of a task version needed that were done.

    `peak_rss_kb` is in KiB. `lead_seconds` is, per run, the time from the beginning of the phase to
    that of its first unit: the import of warm units, the queue of a cluster.
    """

    num_runs: int
    num_units: int
    peak_rss_kb: Spread
    cpu_seconds: Spread
    wall_seconds: Spread
    lead_seconds: Spread


Needs = dict[tuple[int, Component], Need]

# By the name of a unit's log; see `flows.units.plan`.
_COMPONENT = """CASE substring(logfile FROM '([a-z]+)-[0-9]+\\.log$')
    WHEN 'init' THEN 'init' WHEN 'nonpar' THEN 'non_parallel' ELSE 'parallel'
    END AS component"""
_SPREAD = """
    percentile_cont(ARRAY[0.1, 0.5, 0.9]) WITHIN GROUP (ORDER BY {0}) || ARRAY[avg({0}), max({0})]
    AS {1}"""

# Each LATERAL walks an index and stops.
_NEEDS = text(
    f"""
    WITH version AS (
        SELECT id AS asked, id AS task_id FROM taskv2 WHERE id = ANY(:task_ids)
        UNION
        SELECT task.id, other.id
        FROM taskv2 AS task
        JOIN taskgroupv2 AS own ON own.id = task.taskgroupv2_id
        JOIN taskgroupv2 AS alike ON alike.pkg_name = own.pkg_name AND alike.version = own.version
            AND alike.origin = own.origin AND alike.resource_id = own.resource_id
        JOIN taskv2 AS other ON other.taskgroupv2_id = alike.id AND other.name = task.name
        WHERE task.id = ANY(:task_ids) AND own.origin <> 'other'
    ),
    run AS (
        SELECT asked, latest.*,
            row_number() OVER (PARTITION BY asked ORDER BY latest.id DESC) AS number
        FROM version, LATERAL (
            SELECT id, timestamp_started FROM historyrun
            WHERE historyrun.task_id = version.task_id AND status <> 'submitted'
            ORDER BY id DESC LIMIT {_LATEST_RUNS}
        ) AS latest
    ),
    unit AS MATERIALIZED (
        SELECT asked, run.id AS run_id, run.timestamp_started AS run_began, started_at, ended_at,
            max_rss_kb::float AS rss, cpu_seconds AS cpu,
            extract(epoch FROM ended_at - started_at)::float AS wall,
            {_COMPONENT}
        FROM run, LATERAL (
            SELECT * FROM historyunit
            WHERE history_run_id = run.id AND status = 'done' AND max_rss_kb IS NOT NULL
            ORDER BY id LIMIT {_UNITS_OF_A_RUN}
        ) AS of_run
        WHERE run.number <= {_LATEST_RUNS}
    ),
    phase AS (
        SELECT asked, component, extract(epoch FROM min(started_at) - coalesce(
                lag(max(ended_at)) OVER (PARTITION BY asked, run_id ORDER BY min(started_at)),
                min(run_began)))::float AS lead
        FROM unit GROUP BY asked, run_id, component
    ),
    leads AS (
        SELECT asked, component, count(*) AS num_runs, {_SPREAD.format("lead", "lead")}
        FROM phase GROUP BY asked, component
    ),
    units AS (
        SELECT asked, component, count(*) AS num_units, {_SPREAD.format("rss", "rss")},
            {_SPREAD.format("cpu", "cpu")}, {_SPREAD.format("wall", "wall")}
        FROM unit GROUP BY asked, component
    )
    SELECT asked, component, num_runs, num_units, rss, cpu, wall, lead
    FROM units JOIN leads USING (asked, component)
    """
).bindparams(bindparam("task_ids", type_=ARRAY(Integer)))


async def needs_of(session: AsyncSession, task_ids: Collection[int]) -> Needs:
    """What units of these task versions needed, by task and component; those without are left out.

    The latest 20 runs of each are looked at, whoever's they are, and of each run 2,000 units.
    """
    found = await session.execute(_NEEDS, {"task_ids": list(task_ids)})
    return {
        (task_id, component): Need(num_runs, num_units, *(Spread(*each) for each in spreads))
        for task_id, component, num_runs, num_units, *spreads in found
    }


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """How many images a workflow task was given, and units it had, when it was last done."""

    job_id: int
    num_images: int
    num_units: dict[Component, int]


_EARLIER = text(
    f"""
    WITH run AS (
        SELECT DISTINCT ON (workflowtask_id) id, job_id, workflowtask_id
        FROM historyrun
        WHERE task_id = ANY(:task_ids) AND workflowtask_id = ANY(:workflowtask_ids)
            AND status = 'done'
        ORDER BY workflowtask_id, (dataset_id = :dataset_id) DESC, id DESC
    )
    SELECT run.workflowtask_id, run.job_id,
        CASE WHEN bool_or(component = 'init')
            THEN max(images) FILTER (WHERE component = 'init') ELSE sum(images) END,
        jsonb_object_agg(component, units)
    FROM run, LATERAL (
        SELECT component, count(*) AS units, sum(cardinality(zarr_urls)) AS images
        FROM (
            SELECT zarr_urls, {_COMPONENT}
            FROM historyunit WHERE history_run_id = run.id
        ) AS unit GROUP BY component
    ) AS phase
    GROUP BY run.workflowtask_id, run.job_id
    """
).bindparams(
    bindparam("task_ids", type_=ARRAY(Integer)),
    bindparam("workflowtask_ids", type_=ARRAY(Integer)),
)


async def earlier_runs(
    session: AsyncSession, dataset_id: int | None, workflow_tasks: Mapping[int, int]
) -> dict[int, EarlierRun]:
    """By workflow task, how it was last done, on this dataset if it was, or else on another.

    `workflow_tasks` has by workflow task the task that it has now.
    """
    found = await session.execute(
        _EARLIER,
        {
            "dataset_id": dataset_id,
            "workflowtask_ids": list(workflow_tasks),
            "task_ids": list(set(workflow_tasks.values())),
        },
    )
    return {row[0]: EarlierRun(row[1], int(row[2]), row[3]) for row in found}
