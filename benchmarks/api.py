"""How fast the REST API answers, beside `fractal-server` on the same database server.

    python benchmarks/api.py [--projects 1000] [--jobs 10000] [--images 1000 20000 100000]
        [--units 5000] [--repeat 9] [--python python3.12]

Both get the same projects, tasks, jobs, users, image lists and histories. Medians of the same
requests are taken, which go in turns to the one and to the other, with nothing else to do; and then
of each while a job of `--units` units runs. `goal` tells how many times faster we mean to be.
`fractal-server` needs Python 3.12 or newer, and is installed into an environment in the user's
cache; without one (`--python ''`), only this API is measured.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import URL

from benchmarks.own_stack import own_stack
from benchmarks.plates import images_of_plates
from deployments.demo.client import FractalClient
from tests.differential.reference import ADMIN, PASSWORD, running_reference

TASKS, USERS, PAGE_SIZE = 100, 200, 50
OF_A_PROJECT = 20  # workflows and datasets
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
    Request("datasets of a project", 3, "/api/v2/project/{project}/dataset/"),
    Request("datasets", 3, "/api/v2/dataset/"),
    Request("datasets, a page", 3, "/api/v2/dataset/?page=1&page_size={size}"),
    Request("workflows of a project", 3, "/api/v2/project/{project}/workflow/"),
    Request("jobs of a project", 3, "/api/v2/project/{project}/job/"),
    Request("jobs", 3, "/api/v2/job/"),
    Request("jobs of all, a page", 3, "/admin/v2/job/?page=1&page_size={size}"),
    Request("tasks", 3, "/api/v2/task/"),
    Request("task groups", 3, "/api/v2/task-group/"),
    Request("users", 3, "/auth/users/"),
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
    api_url: str
    database: URL
    project: int = 0
    workflow: int = 0
    task: int = 0
    datasets: dict[int, int] = field(default_factory=dict)  # by number of images

    def __post_init__(self) -> None:
        self.client = FractalClient(self.api_url, ADMIN, PASSWORD)

    def measure(self, request: Request, images: int) -> float:
        """The seconds that an answer takes, which is not parsed here."""
        path = request.path.format(
            project=self.project,
            task=self.task,
            dataset=self.datasets.get(images),
            size=PAGE_SIZE,
            last=images // PAGE_SIZE,
        )
        connection = HTTPConnection(urlsplit(self.api_url).netloc)
        headers = {**self.client.authorization, "Content-Type": "application/json"}
        body = None if request.body is None else json.dumps(request.body)
        began = time.perf_counter()
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        took = time.perf_counter() - began
        connection.close()
        if answer.status != HTTPStatus.OK:
            raise SystemExit(f"{self.name}: {path} was answered with {answer.status}.")
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--projects", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 20_000, 100_000])
    parser.add_argument("--units", type=int, default=5000, help="0: without a job")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--python", default="python3.12", help="for fractal-server")
    options = parser.parse_args()
    with own_stack() as stack:
        ours = Subject("ours", stack.api_url, stack.postgres.fractal)
        if not options.python:
            compare([ours], options)
            return
        with running_reference(
            stack.postgres.fractal, stack.data_dir / "reference", options.python
        ) as running:
            compare([ours, Subject("reference", running.api_url, running.database)], options)


def compare(subjects: list[Subject], options: argparse.Namespace) -> None:
    for subject in subjects:
        began = time.perf_counter()
        prepare(subject, options)
        print(f"{subject.name}: prepared in {time.perf_counter() - began:.0f} s", flush=True)
    report("idle", measure(subjects, options))
    if options.units:
        busy = [measure_while_job_runs(subject, options) for subject in subjects]
        report(f"while a job of {options.units} units runs", busy)


Medians = dict[tuple[str, int], float]  # by request and images (0 where these do not matter)


def measure(subjects: list[Subject], options: argparse.Namespace) -> list[Medians]:
    """Seconds of each subject: requests to one and the other take turns."""
    wanted = [(request, 0) for request in LISTS]
    wanted += [(request, images) for images in options.images for request in IMAGES]
    medians: list[Medians] = [{} for _ in subjects]
    for request, images in wanted:
        rounds = [
            [subject.measure(request, images) for subject in subjects]
            for _ in range(options.repeat)
        ]
        for found, took in zip(medians, zip(*rounds, strict=True), strict=True):
            found[request.name, images] = statistics.median(took)
    return medians


def measure_while_job_runs(subject: Subject, options: argparse.Namespace) -> Medians:
    job = submit(subject, make_dataset(subject, "busy", options.units))
    url = f"/api/v2/project/{subject.project}/job/{job['id']}/"
    deadline = time.monotonic() + 120
    while not _units_of(subject, job["id"]):
        if time.monotonic() > deadline:
            raise SystemExit(f"{subject.name}: job {job['id']} does not begin.")
        time.sleep(0.2)
    (times,) = measure([subject], options)
    if subject.client.get(url)["status"] != "submitted":
        print(f"{subject.name}: the job ended before the last measurement", flush=True)
    return times


def report(when: str, times: list[Medians]) -> None:
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


def prepare(subject: Subject, options: argparse.Namespace) -> None:
    """Projects, tasks, workflows, jobs, users, and datasets whose images are done by a task."""
    client = subject.client
    subject.project = client.post("/api/v2/project/", {"name": "project"})["id"]
    task = {"version": "1", "command_parallel": UNIT, "docs_info": 20 * "What it does. "}
    tasks = [client.post("/api/v2/task/", {**task, "name": f"Task {n}"}) for n in range(TASKS)]
    base = f"/api/v2/project/{subject.project}"
    subject.workflow = client.post(f"{base}/workflow/", {"name": "benchmark"})["id"]
    url = f"{base}/workflow/{subject.workflow}/wftask/"
    subject.task = _put_into_workflow(client, url, tasks[0]["id"])
    dataset = make_dataset(subject, "one", 1)
    job = submit(subject, dataset)
    while client.get(f"{base}/job/{job['id']}/")["status"] == "submitted":
        time.sleep(0.2)
    asyncio.run(_multiply(subject, job["id"], dataset, options))
    for size in options.images:
        subject.datasets[size] = make_dataset(subject, f"of {size}", size)
    asyncio.run(_write_histories(subject, job["id"]))


def _put_into_workflow(client: FractalClient, url: str, task_id: int) -> int:
    (made,) = client.post(url, [{"task_id": task_id}])
    return int(made["id"])


def make_dataset(subject: Subject, name: str, size: int) -> int:
    zarr_dir = subject.client.get("/auth/current-user/")["project_dirs"][0]
    images = images_of_plates(f"{zarr_dir}/{name}", size)
    body = {"name": name, "zarr_dir": zarr_dir, "images": images}
    made = subject.client.post(f"/api/v2/project/{subject.project}/dataset/import/", body)
    return int(made["id"])


def submit(subject: Subject, dataset: int) -> Any:
    url = f"/api/v2/project/{subject.project}/job/submit/"
    return subject.client.post(url, {}, workflow_id=subject.workflow, dataset_id=dataset)


async def _multiply(
    subject: Subject, job: int, dataset_id: int, options: argparse.Namespace
) -> None:
    """Copies of rows: projects with a dataset, a workflow and jobs in each, and users."""
    connection = await _connect(subject)
    user = await connection.fetchval("SELECT user_id FROM linkuserprojectv2")
    first = f"id = {subject.project}"
    projects = await _copy(connection, "projectv2", first, options.projects - 1, "name")
    await connection.execute(
        "INSERT INTO linkuserprojectv2 (project_id, user_id, is_owner, is_verified, permissions)"
        " SELECT id, $1, true, true, 'rwx' FROM unnest($2::int[]) AS id",
        *(user, projects),
    )
    workflow, dataset = f"id = {subject.workflow}", f"id = {dataset_id}"
    for project in projects:
        await _copy(connection, "workflowv2", workflow, 1, project_id=project)
        await _copy(connection, "datasetv2", dataset, 1, project_id=project)
    of_project = OF_A_PROJECT - 1
    await _copy(connection, "datasetv2", dataset, of_project, "name")
    for copy in await _copy(connection, "workflowv2", workflow, of_project, "name"):
        task = f"id = {subject.task}"
        await _copy(connection, "workflowtaskv2", task, 1, workflow_id=copy)
    each = options.jobs // options.projects
    for project in [subject.project, *projects]:
        given = {"project_id": project, "flow_run_id": None, "dataset_id": None}
        await _copy(connection, "jobv2", f"id = {job}", each, **given)
    await _copy(connection, "user_oauth", f"id = {user}", USERS, "email")
    await connection.close()


async def _copy(
    connection: asyncpg.Connection,
    table: str,
    where: str,
    number: int,
    numbered: str = "",
    **given: int | None,
) -> list[int]:
    """Copies of a row, with a number before what must differ, and with other values. Their ids."""
    found = await connection.fetch(
        "SELECT column_name AS name FROM information_schema.columns"
        " WHERE table_name = $1 AND table_schema = 'public' AND column_name <> 'id'",
        table,
    )
    values = {row["name"]: f'"{row["name"]}"' for row in found}
    values |= {name: str(value or "NULL") for name, value in given.items() if name in values}
    if numbered:
        values[numbered] = f"n || {numbered}"
    copies = await connection.fetch(
        f"INSERT INTO {table} ({', '.join(f'{chr(34)}{name}{chr(34)}' for name in values)})"
        f" SELECT {', '.join(values.values())} FROM {table}, generate_series(1, {number}) AS n"
        f" WHERE {where} RETURNING id"
    )
    return [copy["id"] for copy in copies]


async def _write_histories(subject: Subject, job: int) -> None:
    """Copies of a job's run, for each dataset, with a unit on each of its images."""
    connection = await _connect(subject)
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


async def _connect(subject: Subject) -> asyncpg.Connection:
    url = subject.database.set(drivername="postgresql")
    return await asyncpg.connect(url.render_as_string(hide_password=False))


def _units_of(subject: Subject, job: int) -> int:
    async def count() -> int:
        connection = await _connect(subject)
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
