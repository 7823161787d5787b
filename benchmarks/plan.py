"""How long a plan takes, and how well it predicts what jobs take.

    python -m benchmarks.plan [--images 20000] [--tasks 5] [--jobs 10]

Runs on an embedded stack of its own. The plans are of a workflow whose tasks were all run on all
images of a dataset; beside them, the same number of images is counted by a list of them, as the
measure of this machine at this moment. Then jobs of tasks that sleep and compute for known times
run once, are planned, and run again: told is how many of the plans were within 30 %.
"""

import argparse
import asyncio
import statistics
import time
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import URL, text

from benchmarks.own_stack import own_stack
from deployments.demo.client import FractalClient
from fractal_models.database import open_database
from tests.differential.reference import ADMIN, PASSWORD

CLOSE = 0.3
REPEAT = 9
_TASK = """
import argparse, json, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("--args-json")
parser.add_argument("--out-json")
arguments = json.loads(pathlib.Path(parser.parse_args().args_json).read_text())
time.sleep(arguments["sleep"])
until = time.process_time() + arguments["compute"]
while time.process_time() < until:
    pass
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    with own_stack() as stack:
        client = FractalClient(stack.api_url, ADMIN, PASSWORD)
        site = _Site(client, stack.data_dir)
        measure_plans(site, stack.postgres.fractal, options.images, options.tasks)
        measure_predictions(site, options.jobs, Random(options.seed))


class _Site:
    """A project, and a task that sleeps and computes as its arguments say."""

    def __init__(self, client: FractalClient, folder: Path) -> None:
        self.client = client
        self.zarr_dir = Path(client.get("/auth/current-user/")["project_dirs"][0])
        project = client.post("/api/v2/project/", {"name": "benchmark"})
        self.base = f"/api/v2/project/{project['id']}"
        program = folder / "task.py"
        program.write_text(_TASK)
        program.chmod(0o755)
        self.command = f"python3 {program}"  # which also another user can run

    def task(self, name: str) -> int:
        body = {"name": name, "version": "1", "command_parallel": self.command}
        return int(self.client.post("/api/v2/task/", body)["id"])

    def workflow(self, *tasks: dict[str, Any]) -> dict[str, Any]:
        workflow = self.client.post(f"{self.base}/workflow/", {"name": f"w{time.time_ns()}"})
        url = f"{self.base}/workflow/{workflow['id']}/"
        self.client.post(f"{url}wftask/", list(tasks))
        return dict(self.client.get(url))

    def dataset(self, images: int) -> dict[str, Any]:
        folder = self.zarr_dir / str(time.time_ns())
        listed = [{"zarr_url": f"{folder}/{n}", "attributes": {"n": n % 96}} for n in range(images)]
        for image in listed[: images if images < 1000 else 0]:
            Path(image["zarr_url"]).mkdir(parents=True)
        body = {"name": "d", "zarr_dir": str(folder), "images": listed}
        return dict(self.client.post(f"{self.base}/dataset/import/", body))

    def plan(self, workflow: dict[str, Any], dataset: dict[str, Any], **body: Any) -> Any:
        ids = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
        return self.client.post(f"{self.base}/job/plan/", body, **ids)

    def run(self, workflow: dict[str, Any], dataset: dict[str, Any]) -> float:
        """Run a job. Returns how long its workflow tasks took, in seconds."""
        ids = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
        job = self.client.post(f"{self.base}/job/submit/", {}, **ids)
        while job["status"] == "submitted":
            time.sleep(0.2)
            job = self.client.get(f"{self.base}/job/{job['id']}/")
        assert job["status"] == "done", job["log"]
        began = next(line for line in job["log"].splitlines() if " begins, on " in line)
        began_at = datetime.fromisoformat(" ".join(began.split()[:2]).replace(",", "."))
        return (
            datetime.fromisoformat(job["end_timestamp"]) - began_at.astimezone()
        ).total_seconds()


def measure_plans(site: _Site, database: URL, images: int, tasks: int) -> None:
    ids = [site.task(f"task {number}") for number in range(tasks)]
    arguments = {"args_parallel": {"sleep": 0, "compute": 0}}
    workflow = site.workflow(*({"task_id": task_id, **arguments} for task_id in ids))
    dataset = site.dataset(images)
    asyncio.run(_write_history(database, workflow, dataset["id"]))
    listing = f"{site.base}/dataset/{dataset['id']}/images/query/"
    for what, body in (("all images", {}), ("one well", {"attribute_filters": {"n": [1, 2]}})):
        seconds = []
        for _ in range(REPEAT):
            began = time.perf_counter()
            plan = site.plan(workflow, dataset, **body)
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        site.client.post(listing, {}, page_size=images)
        listed = time.perf_counter() - began
        median = statistics.median(seconds)
        print(
            f"{images} images, {tasks} tasks, {what} ({plan['tasks'][0]['images']}): "
            f"{1000 * median:.0f} ms, at most {1000 * max(seconds):.0f}; "
            f"a list of all images: {1000 * listed:.0f} ms, ratio {median / listed:.2f}",
            flush=True,
        )


async def _write_history(database: URL, workflow: dict[str, Any], dataset_id: int) -> None:
    """A job before, in which all tasks were done with all images."""
    async with open_database(database) as sessions, sessions() as session:
        for workflow_task in workflow["task_list"]:
            given = {
                "dataset": dataset_id,
                "workflow_task": workflow_task["id"],
                "task": workflow_task["task_id"],
            }
            await session.execute(_HISTORY, given)
        await session.commit()


_HISTORY = text(
    """
    WITH job AS (
        INSERT INTO jobv2 (user_email, fractal_server_version, first_task_index, last_task_index,
            start_timestamp, status, dataset_dump, workflow_dump, project_dump, attribute_filters,
            type_filters)
        VALUES ('', '', 0, 0, now(), 'done', '{}', '{}', '{}', '{}', '{}') RETURNING id
    ), run AS (
        INSERT INTO historyrun (dataset_id, workflowtask_id, job_id, task_id, workflowtask_dump,
            timestamp_started, status, num_available_images)
        SELECT :dataset, :workflow_task, id, :task, '{}', now(), 'done', 1 FROM job RETURNING id
    ), units AS (
        INSERT INTO historyunit (history_run_id, status, logfile, zarr_urls, started_at, ended_at,
            max_rss_kb, cpu_seconds)
        SELECT run.id, 'done', '/0/par-000001.log', ARRAY[zarr_url], now(),
            now() + random() * interval '9 s', 100000 * random(), random()
        FROM run, datasetimage WHERE dataset_id = :dataset RETURNING id, zarr_urls
    )
    INSERT INTO historyimagecache (dataset_id, workflowtask_id, zarr_url, latest_history_unit_id)
    SELECT :dataset, :workflow_task, zarr_urls[1], id FROM units
    """
)


def measure_predictions(site: _Site, jobs: int, random: Random) -> None:
    close = 0
    for number in range(jobs):
        times = {"sleep": random.uniform(0.2, 2), "compute": random.choice([0, 0.1, 0.4])}
        tasks = [
            {"task_id": site.task(f"job {number} task {place}"), "args_parallel": times}
            for place in range(random.choice([1, 2]))
        ]
        workflow, images = site.workflow(*tasks), random.randint(1, 12)
        site.run(workflow, site.dataset(images))
        dataset = site.dataset(images)
        predicted = site.plan(workflow, dataset)["wall_seconds"]["median"]
        took = site.run(workflow, dataset)
        close += abs(predicted - took) <= CLOSE * took
        print(
            f"{len(tasks)} tasks on {images} images: {took:.1f} s, predicted {predicted:.1f} s",
            flush=True,
        )
    print(f"{close} of {jobs} within {CLOSE:.0%}")


if __name__ == "__main__":
    main()
