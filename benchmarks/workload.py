"""Jobs of all types of tasks that are kept running, by a client that bears an absent API."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from benchmarks.sites import Site
from deployments.demo.client import AwayError, FractalClient
from tests.consistency import TASKS, task_bodies

_LOOK_SECONDS = 0.3
_LONGEST_UNIT = 0.05
# Units of a SLURM job that is cancelled fail.
_LONGEST_ON_CLUSTER, _RETRIES_ON_CLUSTER = 0.5, 20
_FAIL_FIRST = 3  # images of each converter on which units fail for the first time

Value = TypeVar("Value")


@dataclass
class Job:
    """A job that was submitted: its id, where its units write, and when it was in which state."""

    id: int
    journal: Path
    submitted_at: float
    status: str = "submitted"


class Workload:
    """Keeps `at_once` jobs running, each with a workflow and a dataset of its own.

    `jobs` are all so far. `images` is how many each of the two converters of a job makes; with
    their copies these are units by the fivefold.
    """

    def __init__(
        self, client: FractalClient, site: Site, seed: int, at_once: int, images: int
    ) -> None:
        self.jobs: list[Job] = []
        self._client = client
        self._site = site
        on_cluster = site.cluster is not None
        self._retries = _RETRIES_ON_CLUSTER if on_cluster else 1
        self._longest_unit = _LONGEST_ON_CLUSTER if on_cluster else _LONGEST_UNIT
        self._random = Random(seed)
        self._at_once = at_once
        self._images = images
        self._ending = self._given_up = False
        self._made = 0
        project = client.post("/api/v2/project/", {"name": "chaos"})
        self._base = f"/api/v2/project/{project['id']}"
        self._tasks = [
            client.post("/api/v2/task/", body)["id"] for body in task_bodies("1", site.command)
        ]

    @property
    def running(self) -> list[Job]:
        return [job for job in self.jobs if job.status == "submitted"]

    def end(self) -> None:
        """Submit no more jobs; `run` returns when those that run have ended."""
        self._ending = True

    def give_up(self) -> None:
        """Wait no longer for the jobs that run."""
        self._given_up = True

    def run(self) -> None:
        """Submit jobs and look after them until told to end.

        Raises:
            DemoError: the API refuses something that it should not.
        """
        while not self._given_up and (self.running or not self._ending):
            for job in self.running:
                job.status = self._patiently(partial(self._status, job))
            if not self._ending and len(self.running) < self._at_once:
                self._submit()
            time.sleep(_LOOK_SECONDS)

    def _status(self, job: Job) -> str:
        return str(self._client.get(f"{self._base}/job/{job.id}/")["status"])

    def _submit(self) -> None:
        """One more job. An answer that was lost must not make it two."""
        journal, ids = self._patiently(self._prepare)

        def submitted() -> int:
            jobs = self._client.get(f"{self._base}/job/", log=False)
            for job in jobs:
                if job["dataset_id"] == ids["dataset_id"]:
                    return int(job["id"])
            return int(self._client.post(f"{self._base}/job/submit/", {}, **ids)["id"])

        self.jobs.append(Job(self._patiently(submitted), journal, time.time()))

    def _prepare(self) -> tuple[Path, dict[str, int]]:
        """A workflow and a dataset; begun anew with other names if the API went away meanwhile."""
        self._made += 1
        name = f"chaos {self._made}"
        journal = self._site.folder / f"journal-{self._made}.jsonl"
        journal.touch()
        if self._site.cluster is not None:
            shutil.chown(journal, self._site.cluster.user)
        workflow = self._client.post(f"{self._base}/workflow/", {"name": name})
        self._client.post(
            f"{self._base}/workflow/{workflow['id']}/wftask/", self._workflow_tasks(str(journal))
        )
        zarr_dir = self._site.folder / "projects" / str(self._made)
        dataset = self._client.post(
            f"{self._base}/dataset/import/", {"name": name, "zarr_dir": str(zarr_dir), "images": []}
        )
        return journal, {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}

    def _workflow_tasks(self, journal: str) -> list[dict[str, Any]]:
        """The tasks of `journal_tasks.py` in order: two converters, then those on the images."""
        numbers = range(self._images)
        own = [{"names": [f"a{i}" for i in numbers]}, {"names": [f"b{i}" for i in numbers]}]
        failing = [f"{letter}{i}" for letter in "ab" for i in range(_FAIL_FIRST)]
        common = {"journal": journal, "fail_first": failing}
        bodies = []
        for number, (task_id, task) in enumerate(zip(self._tasks, TASKS.values(), strict=True)):
            args = {**common, "seconds": round(self._random.uniform(0.005, self._longest_unit), 3)}
            body: dict[str, Any] = {"task_id": task_id}
            if "command_non_parallel" in task:
                body["args_non_parallel"] = args | (own[number] if number < len(own) else {})
            if "command_parallel" in task:
                body["args_parallel"] = args
                body["meta_parallel"] = {"retry": {"max": self._retries}}
            if self._site.cluster is not None and "command_non_parallel" in task:
                body["meta_non_parallel"] = {"retry": {"max": self._retries}}
            bodies.append(body)
        return bodies

    def _patiently(self, call: Callable[[], Value]) -> Value:
        while True:
            try:
                return call()
            except AwayError:
                if self._given_up:
                    raise
                time.sleep(_LOOK_SECONDS)
