"""How fast the REST API answers, beside `fractal-server` on the same database server.

    python benchmarks/api.py [--images 1000 20000 100000] [--repeat 9] [--python python3.12]

Both get the same projects, tasks, jobs, image lists and histories. The medians of the same requests
are taken with nothing else to do, and while a job of `--units` units runs; `goal` tells how many
times faster we mean to be. `fractal-server` needs Python 3.12 or newer, and is installed into an
environment in the user's cache; without one (`--python ''`), only this API is measured.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import asyncpg
from sqlalchemy import URL

from deployments.demo.client import FractalClient
from deployments.stack import StackOptions, running_stack
from tests.differential.reference import ADMIN, PASSWORD, running_reference

PROJECTS, TASKS, JOBS, PAGE_SIZE = 30, 100, 200, 50
UNIT = "sh -c 'sleep 0.1'"


@dataclass(frozen=True)
class Request:
    """A request that is measured; `goal` is how many times faster than the reference it should be.

    The path is told the ids of a `Subject`.
    """

    name: str
    goal: float
    path: str
    body: Any = None


LISTS = [
    Request("current user", 1, "/auth/current-user/?group_ids_names=true"),
    Request("projects", 3, "/api/v2/project/"),
    Request("jobs", 3, "/api/v2/project/{project}/job/"),
    Request("task groups", 3, "/api/v2/task-group/"),
]
_DATASET = "/api/v2/project/{project}/dataset/{dataset}/"
_QUERY = _DATASET + "images/query/?page_size={size}&page="
_STATUS = "/api/v2/project/{project}/status/images/?dataset_id={dataset}&workflowtask_id={task}"
IMAGES = [
    Request("dataset", 10, _DATASET),
    Request("images, first page", 10, _QUERY + "1", {}),
    Request("images, last page", 10, _QUERY + "{last}", {}),
    Request("images, filtered", 10, _QUERY + "1", {"attribute_filters": {"well": ["A08", "B09"]}}),
    Request("images, by type", 10, _QUERY + "1", {"type_filters": {"is_3D": True}}),
    Request("status/images", 10, _STATUS + "&page_size={size}&page=1", {}),
]


@dataclass
class Subject:
    """A server with what was made on it."""

    name: str
    client: FractalClient
    database: URL
    project: int = 0
    workflow: int = 0
    task: int = 0
    datasets: dict[int, int] = field(default_factory=dict)  # by number of images

    def measure(self, request: Request, images: int, repeat: int) -> float:
        """The median of the seconds that an answer takes."""
        path = request.path.format(
            project=self.project,
            task=self.task,
            dataset=self.datasets.get(images),
            size=PAGE_SIZE,
            last=images // PAGE_SIZE,
        )
        path, _, parameters = path.partition("?")
        query = dict(parse_qsl(parameters))
        took = []
        for _ in range(repeat):
            began = time.perf_counter()
            if request.body is None:
                self.client.get(path, **query)
            else:
                self.client.post(path, request.body, **query)
            took.append(time.perf_counter() - began)
        return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 20_000, 100_000])
    parser.add_argument("--units", type=int, default=5000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--python", default="python3.12", help="for fractal-server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="fractal-benchmark-",
        ignore_cleanup_errors=True,  # units of the last job may still write
    ) as folder:
        stack_options = StackOptions(
            data_dir=Path(folder),
            port=0,
            prefect_port=0,
            admin_email=ADMIN,
            admin_password=PASSWORD,
        )
        with running_stack(stack_options) as stack:
            ours = Subject(
                "ours", FractalClient(stack.api_url, ADMIN, PASSWORD), stack.postgres.fractal
            )
            if not options.python:
                compare([ours], options)
                return
            with running_reference(
                stack.postgres.fractal, Path(folder, "reference"), options.python
            ) as running:
                client = FractalClient(running.api_url, ADMIN, PASSWORD)
                compare([ours, Subject("reference", client, running.database)], options)


def compare(subjects: list[Subject], options: argparse.Namespace) -> None:
    for subject in subjects:
        began = time.perf_counter()
        prepare(subject, options.images)
        print(f"{subject.name}: prepared in {time.perf_counter() - began:.0f} s", flush=True)
    report("idle", options.images, [measure(subject, options) for subject in subjects])
    busy = [measure_while_job_runs(subject, options) for subject in subjects]
    report(f"while a job of {options.units} units runs", options.images, busy)


def measure(subject: Subject, options: argparse.Namespace) -> dict[tuple[str, int], float]:
    """Seconds by request and number of images (0 where that does not matter)."""
    wanted = [(request, 0) for request in LISTS]
    wanted += [(request, images) for images in options.images for request in IMAGES]
    return {
        (request.name, images): subject.measure(request, images, options.repeat)
        for request, images in wanted
    }


def measure_while_job_runs(
    subject: Subject, options: argparse.Namespace
) -> dict[tuple[str, int], float]:
    job = submit(subject, make_dataset(subject, "busy", options.units))
    url = f"/api/v2/project/{subject.project}/job/{job['id']}/"
    deadline = time.monotonic() + 120
    while not _units_of(subject, job["id"]):
        if time.monotonic() > deadline:
            raise SystemExit(f"{subject.name}: job {job['id']} does not begin.")
        time.sleep(0.2)
    times = measure(subject, options)
    if subject.client.get(url)["status"] != "submitted":
        print(f"{subject.name}: the job ended before the last measurement", flush=True)
    return times


def report(when: str, images: list[int], times: list[dict[tuple[str, int], float]]) -> None:
    """A table of medians in milliseconds, of ours and of the reference, if that was measured."""
    print(f"\n{when}, medians in ms\n{'':32}{'ours':>9}{'reference':>11}{'ratio':>8}  goal")
    goals = {request.name: request.goal for request in (*LISTS, *IMAGES)}
    for key, ours in times[0].items():
        name, number = key
        line = f"{name + (f' of {number:,}' if number else ''):32}{1000 * ours:9.1f}"
        for reference in times[1:]:
            ratio = reference[key] / ours
            goal = goals[name] if number in (0, 20_000) else 1
            missed = "" if ratio >= goal else "  MISSED"
            line += f"{1000 * reference[key]:11.1f}{ratio:8.1f}  {goal:g}{missed}"
        print(line, flush=True)


def prepare(subject: Subject, sizes: list[int]) -> None:
    """Projects, tasks, a workflow, jobs, and datasets whose images are done by its task."""
    client = subject.client
    made = [client.post("/api/v2/project/", {"name": f"project {n}"}) for n in range(PROJECTS)]
    subject.project = made[0]["id"]
    task = {"version": "1", "command_parallel": UNIT, "docs_info": 20 * "What it does. "}
    tasks = [client.post("/api/v2/task/", {**task, "name": f"Task {n}"}) for n in range(TASKS)]
    base = f"/api/v2/project/{subject.project}"
    subject.workflow = client.post(f"{base}/workflow/", {"name": "benchmark"})["id"]
    url = f"{base}/workflow/{subject.workflow}/wftask/"
    subject.task = _put_into_workflow(client, url, tasks[0]["id"])
    job = submit(subject, make_dataset(subject, "one", 1))
    while client.get(f"{base}/job/{job['id']}/")["status"] == "submitted":
        time.sleep(0.2)
    for size in sizes:
        subject.datasets[size] = make_dataset(subject, f"of {size}", size)
    asyncio.run(_multiply(subject, job["id"]))


def _put_into_workflow(client: FractalClient, url: str, task_id: int) -> int:
    (made,) = client.post(url, [{"task_id": task_id}])
    return int(made["id"])


def make_dataset(subject: Subject, name: str, size: int) -> int:
    zarr_dir = subject.client.get("/auth/current-user/")["project_dirs"][0]
    images = [
        {
            "zarr_url": f"{zarr_dir}/{name}/plate_{n // 5000}.zarr/{n % 8}/{n % 24}/{n}",
            "attributes": {
                "plate": f"plate_{n // 5000}.zarr",
                "well": f"{'ABCDEFGH'[n % 8]}{n % 24:02}",
                "acquisition": n % 3,
            },
            "types": {"is_3D": n % 2 == 0},
        }
        for n in range(size)
    ]
    body = {"name": name, "zarr_dir": zarr_dir, "images": images}
    made = subject.client.post(f"/api/v2/project/{subject.project}/dataset/import/", body)
    return int(made["id"])


def submit(subject: Subject, dataset: int) -> Any:
    url = f"/api/v2/project/{subject.project}/job/submit/"
    return subject.client.post(url, {}, workflow_id=subject.workflow, dataset_id=dataset)


async def _multiply(subject: Subject, job: int) -> None:
    """Copies of a job; and of its run, for each dataset, with a unit on each of its images."""
    connection = await asyncpg.connect(
        subject.database.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    columns = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'jobv2'"
        " AND column_name NOT IN ('id', 'flow_run_id', 'dataset_id')"
    )
    listed = ", ".join(row["column_name"] for row in columns)
    await connection.execute(
        f"INSERT INTO jobv2 ({listed}) SELECT {listed} FROM jobv2, generate_series(1, {JOBS})"
        f" WHERE id = {job}"
    )
    for size, dataset in subject.datasets.items():
        images = subject.client.get(f"/api/v2/project/{subject.project}/dataset/{dataset}/export/")[
            "images"
        ]
        run = await connection.fetchval(
            "INSERT INTO historyrun (dataset_id, workflowtask_id, job_id, workflowtask_dump,"
            " task_group_dump, timestamp_started, status, num_available_images)"
            " SELECT $1, workflowtask_id, job_id, workflowtask_dump, task_group_dump,"
            " timestamp_started, status, $2 FROM historyrun WHERE job_id = $3 RETURNING id",
            *(dataset, size, job),
        )
        await connection.execute(
            "WITH units AS ("
            " INSERT INTO historyunit (history_run_id, status, logfile, has_warnings, zarr_urls)"
            " SELECT $1, 'done', '/log', false, ARRAY[url] FROM unnest($2::text[]) AS url"
            " RETURNING id, zarr_urls)"
            " INSERT INTO historyimagecache"
            " (zarr_url, dataset_id, workflowtask_id, latest_history_unit_id)"
            " SELECT zarr_urls[1], $3, $4, id FROM units",
            *(run, [image["zarr_url"] for image in images], dataset, subject.task),
        )
    await connection.close()


def _units_of(subject: Subject, job: int) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(
            subject.database.set(drivername="postgresql").render_as_string(hide_password=False)
        )
        found: int = await connection.fetchval(
            "SELECT count(*) FROM historyunit JOIN historyrun ON historyrun.id = history_run_id"
            " WHERE job_id = $1",
            job,
        )
        await connection.close()
        return found

    return asyncio.run(count())


if __name__ == "__main__":
    main()
