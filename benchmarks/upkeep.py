"""A day of scheduled jobs beside `fractal-prefect tidy`: databases and disk stay as they are.

    python -m benchmarks.upkeep --jobs 2000 --window 180

In fast motion: schedules of a few seconds run jobs of one image on a stack of its own. What is
older than the window is removed several times in each, and the sizes of all that grows are told.
Prefect's server removes its events after the same time. After two windows nothing may grow but the
record of what was done: the rows of jobs, their history and accounting. Ctrl-C ends it earlier.
"""

import argparse
import asyncio
import os
import random
import time
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from datetime import timedelta
from statistics import mean

import asyncpg

from benchmarks.own_stack import own_stack
from benchmarks.schedules import Day
from deployments.demo.client import FractalClient
from deployments.installation import reached_installation
from deployments.stack import Stack
from deployments.tidying.tidy import Request, tidy
from flows.programs.cluster_files import size
from tests.differential.reference import ADMIN, PASSWORD
from tests.embedded_stack import PREFECT_SOON

_TIDIED_PER_WINDOW = 4
_SHORTEST = (
    12  # of the numbers of schedules, each so many has the shortest interval, and all images
)
_WARM_WINDOWS = 2  # of so many, the first has nothing old yet
_FEWEST = 6
_MOST_GROWTH = 1.1  # of what is flat, from the first third of the time to the last
_RECORD = ("jobv2", "historyrun", "historyunit", "accountingrecord", "datasetv2")


@dataclass(frozen=True)
class Sizes:
    """What there is after a time: jobs that have ended, flow runs, and sizes in bytes."""

    jobs: int
    flow_runs: int
    prefect: int
    fractal: int
    record: int
    folders: int
    logs: int

    @property
    def flat(self) -> dict[str, int]:
        """What must not grow."""
        return {
            "Prefect's database": self.prefect,
            "Fractal's, without the record": self.fractal - self.record,
            "folders of jobs": self.folders,
            "logs": self.logs,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--window", type=float, default=180.0)
    parser.add_argument("--schedules", type=int, default=8)
    options = parser.parse_args()
    os.environ |= PREFECT_SOON
    os.environ["PREFECT_SERVER_EVENTS_RETENTION_PERIOD"] = f"PT{options.window:.0f}S"
    os.environ["PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS"] = "30"
    with own_stack() as stack:
        client = FractalClient(stack.api_url, ADMIN, PASSWORD)
        day = Day(stack, client, random.Random(1))
        day.switch(
            [day.schedule(_SHORTEST * each) for each in range(options.schedules)], active=True
        )
        measured: list[Sizes] = []
        with suppress(KeyboardInterrupt):  # what was measured by then is told
            live(stack, options.jobs, options.window, measured)
    return report(measured)


def live(stack: Stack, jobs: int, window: float, measured: list[Sizes]) -> None:
    """Tidy again and again until so many jobs have ended; add what there is after each window."""
    began = time.monotonic()
    print("".join(f"{each:>12}" for each in ("s", *(each.name for each in fields(Sizes)))))
    while not measured or measured[-1].jobs < jobs:
        time.sleep(window / _TIDIED_PER_WINDOW)
        tidied(stack, window)
        seconds, sizes = time.monotonic() - began, asyncio.run(sizes_of(stack))
        if seconds > _WARM_WINDOWS * window:
            measured.append(sizes)
        numbers = [f"{each:12,}" for each in astuple(sizes)[:2]]
        amounts = [f"{each / 1e6:10.1f}MB" for each in astuple(sizes)[2:]]
        print(f"{seconds:12.0f}", *numbers, *amounts, sep="", flush=True)


def tidied(stack: Stack, window: float) -> None:
    """Remove what is older than the window."""
    with reached_installation(stack.data_dir) as installation:
        request = Request(
            installation, timedelta(seconds=window), dry_run=False, delete_task_groups=False
        )
        asyncio.run(tidy(request, lambda _: None))


async def sizes_of(stack: Stack) -> Sizes:
    fractal = await asyncpg.connect(_dsn(stack, "fractal"))
    prefect = await asyncpg.connect(_dsn(stack, "prefect"))
    database = "SELECT pg_database_size(current_database())"
    record = "SELECT sum(pg_total_relation_size(t::regclass)) FROM unnest($1::text[]) AS t"
    try:
        return Sizes(
            jobs=await fractal.fetchval("SELECT count(*) FROM jobv2 WHERE status <> 'submitted'"),
            flow_runs=await prefect.fetchval("SELECT count(*) FROM flow_run"),
            prefect=await prefect.fetchval(database),
            fractal=await fractal.fetchval(database),
            record=int(await fractal.fetchval(record, list(_RECORD))),
            folders=size(str(stack.data_dir / "jobs")),
            logs=size(str(stack.data_dir / "logs")) + stack.postgres.log.stat().st_size,
        )
    finally:
        await fractal.close()
        await prefect.close()


def _dsn(stack: Stack, name: str) -> str:
    url = getattr(stack.postgres, name).set(drivername="postgresql")
    return str(url.render_as_string(hide_password=False))


def report(measured: list[Sizes]) -> int:
    """How much what must not grow has grown; the exit code."""
    if len(measured) < _FEWEST:
        print(f"Too short to tell: {len(measured)} measurements.")
        return 1
    third, grown = len(measured) // 3, False
    print()
    for what in measured[0].flat:
        before = mean(sizes.flat[what] for sizes in measured[:third])
        after = mean(sizes.flat[what] for sizes in measured[-third:])
        grown |= after > _MOST_GROWTH * before
        print(f"{what:<32}{before / 1e6:8.1f} MB, then {after / 1e6:8.1f} MB")
    jobs = measured[-1].jobs - measured[0].jobs
    record = measured[-1].record - measured[0].record
    print(f"{'The record, per job':<32}{record / max(jobs, 1) / 1e3:8.1f} kB")
    return int(grown)


if __name__ == "__main__":
    raise SystemExit(main())
