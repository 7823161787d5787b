"""What a job of one image takes, beside `fractal-server`: a task that does nothing.

    python -m benchmarks.one_image [--jobs 30] [--python python3.12]

Seconds from submission to the answer, and until the API says that the job is done, asked 50 times a
second. The servers take turns. `fractal-server` needs Python 3.12 or newer; without one
(`--python ''`), only this platform is measured.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.own_stack import own_stack
from deployments.demo.client import FractalClient
from tests.differential.reference import ADMIN, PASSWORD, running_reference

ASK_SECONDS = 0.02


@dataclass
class Side:
    """A server, and what its jobs took, in seconds."""

    name: str
    submit: Callable[[], dict[str, Any]]
    client: FractalClient
    answered: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Run a job."""
        began = time.perf_counter()
        job = self.submit()
        self.answered.append(time.perf_counter() - began)
        while job["status"] == "submitted":
            time.sleep(ASK_SECONDS)
            job = self.client.get(f"/api/v2/project/{job['project_id']}/job/{job['id']}/")
        self.done.append(time.perf_counter() - began)
        if job["status"] != "done":
            raise SystemExit(f"{self.name}: the job failed. {job['log']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--python", default=None)
    options = parser.parse_args()
    with contextlib.ExitStack() as servers:
        stack = servers.enter_context(own_stack())
        sides = [side("fractal-prefect", stack.api_url)]
        if options.python != "":
            database = stack.postgres.fractal
            reference = running_reference(database, stack.data_dir / "reference", options.python)
            sides.append(side("fractal-server", servers.enter_context(reference).api_url))
        for each in sides:
            each.measure()  # the first job after a start is slower
            each.answered.clear()
            each.done.clear()
        for _ in range(options.jobs):
            for each in sides:
                each.measure()
        report(sides)


def side(name: str, url: str) -> Side:
    """A server on which there is a workflow of one task, for a dataset of one image."""
    client = FractalClient(url, ADMIN, PASSWORD)
    zarr_dir = client.get("/auth/current-user/")["project_dirs"][0]
    base = f"/api/v2/project/{client.post('/api/v2/project/', {'name': 'benchmark'})['id']}"
    image = {"zarr_url": f"{zarr_dir}/image.zarr"}
    dataset = client.post(
        f"{base}/dataset/import/", {"name": "one image", "zarr_dir": zarr_dir, "images": [image]}
    )
    task = client.post(
        "/api/v2/task/", {"name": "True", "version": "1", "command_parallel": "true"}
    )
    workflow = client.post(f"{base}/workflow/", {"name": "benchmark"})
    client.post(f"{base}/workflow/{workflow['id']}/wftask/", [{"task_id": task["id"]}])
    ids = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}

    def submit() -> dict[str, Any]:
        return dict(client.post(f"{base}/job/submit/", {}, **ids))

    return Side(name, submit, client)


def report(sides: list[Side]) -> None:
    print(f"{'seconds':16}{'answer':>8}{'at most':>9}{'done':>8}{'at most':>9}{'jobs':>6}")
    for each in sides:
        answered, done = statistics.median(each.answered), statistics.median(each.done)
        print(
            f"{each.name:16}{answered:8.3f}{max(each.answered):9.3f}"
            f"{done:8.2f}{max(each.done):9.2f}{len(each.done):6}",
            flush=True,
        )


if __name__ == "__main__":
    main()
