"""What the engine adds to units of work: jobs of N units of `true`, from submission to done.

    python benchmarks/units.py [--units 1 1000 20000] [--others 1000000] [--repeat 3]

Runs on an embedded stack of its own. The dataset of a job has `--others` images beside those that
the job chooses by an attribute. Beside each size, the same number of `true` is started by
`xargs` on as many cores, as the measure of this machine at this moment: compare the ratios.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import URL

from benchmarks.own_stack import own_stack
from deployments.demo.client import FractalClient
from fractal_models.database import connect
from tests.differential.reference import ADMIN, PASSWORD


@dataclass(frozen=True)
class Timing:
    """Seconds from submission: to the answer, to the flow's first line, to the first unit, to the
    last unit's end, to the job's end."""

    answered: float
    begun: float
    first_unit: float
    last_unit: float
    done: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[1, 1000, 20_000])
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with own_stack() as stack:
        client = FractalClient(stack.api_url, ADMIN, PASSWORD)
        submit = prepare(client, stack.postgres.fractal, options.others)
        submit(1)  # the first job after a start is slower
        for units in options.units:
            report(units, [submit(units) for _ in range(options.repeat)], bare(units))


def prepare(client: FractalClient, database: URL, others: int) -> Callable[[int], Timing]:
    """A project and a task `true`; what runs a job of so many units."""
    zarr_dir = client.get("/auth/current-user/")["project_dirs"][0]
    project = client.post("/api/v2/project/", {"name": "benchmark"})
    task = client.post(
        "/api/v2/task/", {"name": "True", "version": "1", "command_parallel": "true"}
    )
    base = f"/api/v2/project/{project['id']}"
    workflow = client.post(f"{base}/workflow/", {"name": "benchmark"})
    url = f"{base}/workflow/{workflow['id']}/wftask/"
    (workflow_task,) = client.post(url, [{"task_id": task["id"]}])

    def submit(units: int) -> Timing:
        dataset = client.post(
            f"{base}/dataset/import/", {"name": "benchmark", "zarr_dir": zarr_dir, "images": []}
        )
        asyncio.run(write_images(database, dataset["id"], others, units))
        began = time.time()
        job = client.post(
            f"{base}/job/submit/",
            {"attribute_filters": {"chosen": [True]}},
            workflow_id=workflow["id"],
            dataset_id=dataset["id"],
        )
        answered = time.time()
        while job["status"] == "submitted":
            time.sleep(0.05)
            job = client.get(f"{base}/job/{job['id']}/")
        if job["status"] != "done":
            raise SystemExit(f"The job failed: {job['log']}")
        times = timeline(client, job, workflow_task["id"])
        return Timing(answered - began, *(moment - began for moment in times))

    return submit


async def write_images(database: URL, dataset: int, others: int, chosen: int) -> None:
    """A list of images, of which the last ones are those of a job."""
    connection = await connect(database)
    await connection.execute(
        "INSERT INTO datasetimage (dataset_id, zarr_url, attributes)"
        " SELECT $1, '/images/' || n, jsonb_build_object('chosen', n > $2, 'well', n % 96)"
        " FROM generate_series(1, $3::int) AS n ORDER BY n",
        *(dataset, others, others + chosen),
    )
    await connection.close()


def timeline(client: FractalClient, job: dict[str, Any], workflow_task_id: int) -> list[float]:
    """When the flow began, the first unit began, the last unit ended, the job ended."""
    run = client.runs(job, workflow_task_id)[-1]
    units = list(client.units(job, workflow_task_id, run["id"]))
    # The log of a job that waited begins with a line that says so.
    (begins, *_) = (line for line in job["log"].splitlines() if f" Job {job['id']} begins" in line)
    moments = [
        datetime.fromisoformat(begins.partition(" Job ")[0]),
        min(datetime.fromisoformat(unit["started_at"]) for unit in units),
        max(datetime.fromisoformat(unit["ended_at"]) for unit in units),
        datetime.fromisoformat(job["end_timestamp"]),
    ]
    return [moment.timestamp() for moment in moments]


def bare(units: int) -> float:
    """Seconds that `xargs` takes to start as many `true`, on all cores."""
    cores = len(os.sched_getaffinity(0))
    began = time.time()
    subprocess.run(
        ["xargs", "-P", str(cores), "-n", "1", "true"],
        input="\n".join(map(str, range(units))).encode(),
        check=True,
    )
    return time.time() - began


def report(units: int, timings: list[Timing], bare_seconds: float) -> None:
    best = min(timings, key=lambda timing: timing.done)
    median = statistics.median(timing.done for timing in timings)
    print(
        f"{units} units: {best.done:.2f} s at best, {median:.2f} s median of {len(timings)}, "
        f"{1000 * best.done / units:.2f} ms per unit; "
        f"{best.done / bare_seconds:.1f} times bare processes ({bare_seconds:.2f} s)"
    )
    print(
        f"    answer {best.answered:.2f} | flow begins {best.begun:.2f} | "
        f"first unit {best.first_unit:.2f} | last unit ends {best.last_unit:.2f} | "
        f"done {best.done:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
