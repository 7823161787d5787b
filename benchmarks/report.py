"""How long the report of a large job takes, and how large it is.

    python -m benchmarks.report [--units 20000] [--repeat 5]

Rows of a job of three workflow tasks are written into an empty database; one in twenty units failed
with a log of its own in the job's folder. Then its report is made again and again. Beside it, for
the scale of this machine, the units are only read as rows. The goals are 5 s and 2 MB.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import URL, text
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.data_dir import make_data_dir
from deployments.postgres import embedded_postgres
from flows.job_report.report import report_of
from fractal_models.database import open_database, saved_id
from fractal_models.tables import DatasetV2, HistoryRun, JobV2, ProjectV2, Resource
from fractal_models.tables.columns import now
from migrations import upgrade

TASKS = 3
LOG = "reading\n" * 500 + "Traceback (most recent call last):\nValueError: {} is no image\n"
_UNITS = text(
    """
    INSERT INTO historyunit (history_run_id, status, logfile, zarr_urls, started_at, ended_at,
        exit_code, max_rss_kb, cpu_seconds, host, attempt)
    SELECT :run, CASE WHEN number % 20 = 0 THEN 'failed' ELSE 'done' END,
        :folder || '/' || number || '.log', ARRAY['/plate.zarr/' || number],
        now() + make_interval(secs => number / 8), now() + make_interval(secs => number / 8 + 8),
        CASE WHEN number % 20 = 0 THEN 1 ELSE 0 END, 100000 + (random() * 900000)::int,
        random() * 8, 'node', 1
    FROM generate_series(1, :units) AS number
    """
)
_ROWS = text(
    "SELECT unit.* FROM historyunit unit JOIN historyrun run ON run.id = history_run_id "
    "WHERE run.job_id = :job_id"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fractal-benchmark-") as place:
        folder = Path(place)
        make_data_dir(folder)
        with embedded_postgres(folder / "postgres") as postgres:
            asyncio.run(report(postgres.fractal, folder / "jobs", options.units, options.repeat))


async def report(url: URL, folder: Path, units: int, repeat: int) -> None:
    """Print what the report of a job with so many units takes."""
    await upgrade(url)
    async with open_database(url) as sessions, sessions() as session:
        job = await write_job(session, folder, units)
        made = await measure(lambda: report_of(session, job), repeat)
        job_id = {"job_id": saved_id(job)}
        connection = await session.connection()
        read = await measure(lambda: connection.execute(_ROWS, job_id), repeat)
        size = len((await report_of(session, job)).encode())
    print(f"{units} units: report {made:.2f} s, {size / 1e6:.2f} MB; their rows alone {read:.2f} s")


async def write_job(session: AsyncSession, folder: Path, units: int) -> JobV2:
    """A job of three tasks with so many units together, and the logs of those that failed."""
    resource = Resource(
        type="local", name="r", jobs_local_dir="/j", jobs_poll_interval=5, tasks_local_dir="/t"
    )
    session.add(resource)
    await session.flush()
    project = ProjectV2(name="p", resource_id=saved_id(resource))
    session.add(project)
    await session.flush()
    dataset = DatasetV2(name="plate", project_id=saved_id(project), zarr_dir="/z")
    session.add(dataset)
    await session.flush()
    job = JobV2(
        user_email="me@example.org",
        dataset_dump={"name": "plate"},
        workflow_dump={"name": "workflow"},
        project_dump={"name": "p"},
        fractal_server_version="2",
        working_dir=str(folder),
        first_task_index=0,
        last_task_index=TASKS - 1,
        status="failed",
        dataset_id=saved_id(dataset),
        end_timestamp=now(),
    )
    session.add(job)
    await session.flush()
    for order in range(TASKS):
        run = HistoryRun(
            dataset_id=saved_id(dataset),
            job_id=saved_id(job),
            workflowtask_dump={"order": order, "alias": None, "task": {"name": f"task {order}"}},
            status="failed",
            num_available_images=units,
        )
        session.add(run)
        await session.flush()
        logs = folder / str(order)
        logs.mkdir(parents=True)
        number = units // TASKS
        written = {"run": saved_id(run), "folder": str(logs), "units": number}
        await (await session.connection()).execute(_UNITS, written)
        for each in range(20, number + 1, 20):
            (logs / f"{each}.log").write_text(LOG.format(each))
    await session.commit()
    return job


async def measure(asked: Callable[[], Awaitable[Any]], repeat: int) -> float:
    """The median of the seconds that it takes."""
    seconds = []
    for _ in range(repeat):
        begun = time.monotonic()
        await asked()
        seconds.append(time.monotonic() - begun)
    return median(seconds)


if __name__ == "__main__":
    main()
