"""A day of schedules in fast motion: every occurrence is run, or skipped for a reason, and once.

    python benchmarks/schedules.py --seconds 240 --schedules 6 --seed 7

Schedules of a few seconds run jobs on a stack of their own, while the worker is killed and started
at random, and while jobs that somebody submitted hold a dataset now and then. At the end every flow
run of every schedule is held against the jobs, and what is wrong is a finding.
"""

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from deployments.demo.client import AwayError, FractalClient
from deployments.stack import Stack, StackOptions, running_stack
from tests.consistency import task_bodies

ADMIN, PASSWORD = "schedules@example.org", "of the benchmark"

_INTERVALS = (4, 5, 6, 8, 10, 12)  # seconds
_UP, _DOWN = (8.0, 25.0), (2.0, 20.0)  # for how long a worker runs, and is away
_HOLD_SECONDS, _HOLD_CHANCE = 7.0, 0.4
_UNIT_SECONDS = 0.2
_REST_SECONDS = 180.0
_PAGE = 200
_FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
_INSTEAD = re.compile(r"^Missed: .*The occurrence of (\S+ \S+) UTC is run in its place")
_HAD_THEIR_TURN = ("run", "busy", "nothing to do", "paused")
_SHOWN = 20


@dataclass
class Story:
    """What became of all occurrences, and what is wrong about it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    made_up: int = 0
    kills: int = 0
    holds: int = 0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Made:
    """A schedule, its interval, and on what it runs."""

    id: int
    name: str
    deployment_id: str
    interval: int
    dataset_id: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--schedules", type=int, default=6)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    os.environ["FRACTAL_MAX_RESTARTS"] = "20"  # acts at random can hit one job more often
    folder = Path(tempfile.mkdtemp(prefix="fractal-schedules-"))
    stack_options = StackOptions(
        data_dir=folder, port=0, prefect_port=0, admin_email=ADMIN, admin_password=PASSWORD
    )
    with running_stack(stack_options) as stack:
        client = FractalClient(stack.api_url, ADMIN, PASSWORD)
        day = Day(stack, client, random.Random(options.seed))
        story = day.live(options.schedules, options.seconds)
    report(story)
    if story.findings:
        print(f"\nEverything is kept in {folder}.")
        return 1
    shutil.rmtree(folder)
    return 0


class Day:
    """The schedules of a stack, and what happens to it."""

    def __init__(self, stack: Stack, client: FractalClient, chance: random.Random) -> None:
        self._stack = stack
        self._client = client
        self._chance = chance
        self._story = Story()
        project = self._client.post("/api/v2/project/", {"name": "day"})
        self._base = f"/api/v2/project/{project['id']}"
        (body,) = [each for each in task_bodies("1") if each["name"] == "Journal process"]
        self._task_id = self._client.post("/api/v2/task/", body)["id"]
        self._slow = self._workflow("slow", _HOLD_SECONDS)
        self._auth = httpx.BasicAuth(*stack.prefect_auth.split(":", 1))

    def live(self, count: int, seconds: float) -> Story:
        """Let the schedules run for so long, and examine what became of them."""
        made = [self.schedule(number) for number in range(count)]
        self.switch(made, active=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._pass(end, _UP, made)
            self._stack.parts["worker"].kill()
            self._story.kills += 1
            self._pass(end, _DOWN, made)
            self._stack.start("worker")
        self.switch(made, active=False)
        self._rest(made)
        jobs = self._client.get(f"{self._base}/job/", log=False)
        for schedule in made:
            examine(self._story, schedule, self._flow_runs(schedule), jobs)
        return self._story

    def switch(self, made: list[Made], *, active: bool) -> None:
        """Have all schedules go on, or pause them. Prefect may be too busy to answer."""
        for schedule in made:
            url = f"{self._base}/schedule/{schedule.id}/"
            while True:
                try:
                    self._client.patch(url, {"active": active})
                    break
                except AwayError:
                    time.sleep(1.0)

    def _workflow(self, name: str, seconds: float) -> int:
        workflow = self._client.post(f"{self._base}/workflow/", {"name": name})
        journal = self._stack.data_dir / "projects" / f"journal-{name}.jsonl"
        journal.parent.mkdir(exist_ok=True)
        journal.touch()
        task = {
            "task_id": self._task_id,
            "args_parallel": {"journal": str(journal), "seconds": seconds},
        }
        self._client.post(f"{self._base}/workflow/{workflow['id']}/wftask/", [task])
        return int(workflow["id"])

    def schedule(self, number: int) -> Made:
        interval = _INTERVALS[number % len(_INTERVALS)]
        zarr_dir = f"{self._stack.data_dir}/projects/{number}"
        dataset = self._client.post(
            f"{self._base}/dataset/import/",
            {
                "name": f"dataset {number}",
                "zarr_dir": zarr_dir,
                "images": [{"zarr_url": f"{zarr_dir}/A"}],
            },
        )
        schedule = self._client.post(
            f"{self._base}/schedule/",
            {
                "workflow_id": self._workflow(f"workflow {number}", _UNIT_SECONDS),
                "dataset_id": dataset["id"],
                "when": {"interval_seconds": interval},
                "active": False,
                "images": "not done" if number % 4 == 3 else "all",
            },
        )
        return Made(
            schedule["id"], schedule["name"], schedule["deployment_id"], interval, dataset["id"]
        )

    def _pass(self, end: float, span: tuple[float, float], made: list[Made]) -> None:
        """Let some time pass, in which somebody may submit a job."""
        until = min(end, time.monotonic() + self._chance.uniform(*span))
        if self._chance.random() < _HOLD_CHANCE:
            self._hold(self._chance.choice(made))
        time.sleep(max(0.0, until - time.monotonic()))

    def _hold(self, schedule: Made) -> None:
        ids = {"workflow_id": self._slow, "dataset_id": schedule.dataset_id}
        try:
            self._client.post(f"{self._base}/job/submit/", {}, **ids)
        except AwayError:
            raise
        except Exception as busy:  # the dataset is, with a job of the schedule
            if "has a job that has not ended" not in str(busy):
                raise
        else:
            self._story.holds += 1

    def _rest(self, made: list[Made]) -> None:
        """Wait until all that was due has come to its end."""
        deadline = time.monotonic() + _REST_SECONDS
        while time.monotonic() < deadline:
            runs = [run for schedule in made for run in self._flow_runs(schedule)]
            if all(run["state_type"] in _FINAL for run in runs):
                return
            time.sleep(1.0)

    def _flow_runs(self, schedule: Made) -> list[dict[str, Any]]:
        """All flow runs of a schedule, the first to come first."""
        url = f"{self._stack.prefect_url}/api/flow_runs/filter"
        found: list[dict[str, Any]] = []
        while True:
            body = {
                "flow_runs": {"deployment_id": {"any_": [schedule.deployment_id]}},
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": _PAGE,
                "offset": len(found),
            }
            answer = httpx.post(url, json=body, auth=self._auth, timeout=30)
            page = answer.raise_for_status().json()
            found += page
            if len(page) < _PAGE:
                return found


def examine(
    story: Story, schedule: Made, flow_runs: list[dict[str, Any]], jobs: list[dict[str, Any]]
) -> None:
    """Hold the flow runs of a schedule against the jobs."""
    begun = Counter(job["flow_run_id"] for job in jobs)
    done = {job["flow_run_id"] for job in jobs if job["status"] == "done"}
    instead: dict[str, str] = {}
    became: dict[str, str] = {}
    for run in flow_runs:
        moment = _moment(run)
        outcome, reason = _outcome(run, begun[run["id"]])
        if named := _INSTEAD.match(reason):
            instead[moment] = named[1]
        became[moment] = outcome
        story.outcomes[outcome] += 1
        if outcome.startswith("?"):
            story.findings.append(f"{schedule.name}, {moment}: {outcome[2:]}")
        if outcome == "run" and run["id"] not in done:
            story.findings.append(f"{schedule.name}, {moment}: its job is not done")
    _examine_times(story, schedule, flow_runs)
    _examine_made_up(story, schedule, instead, became)


def _examine_made_up(
    story: Story, schedule: Made, instead: dict[str, str], became: dict[str, str]
) -> None:
    """Whether what was to be run in place of what was missed (`instead`) had its turn."""
    made_up = set()
    for moment in instead:
        last = moment
        while last in instead:
            last = instead[last]
        made_up.add(last)
        if became.get(last) not in _HAD_THEIR_TURN:
            story.findings.append(
                f"{schedule.name}, {moment}: {last} was to be run in its place, but it was "
                f"{became.get(last, 'not there')}"
            )
    story.made_up += len(made_up)


def _outcome(run: dict[str, Any], jobs: int) -> tuple[str, str]:
    """What became of a flow run, and why; a question mark where that should not be."""
    state, reason = run["state_name"], run["state"]["message"] or ""
    if jobs > 1:
        return f"? {jobs} jobs", reason
    if jobs == 1:
        return ("run" if state == "Completed" else f"? a job, and {state}"), reason
    if state != "Skipped":
        return f"? no job, and {state}: {reason}", reason
    for outcome, words in (
        ("missed", "Missed: "),
        ("busy", "has a job that has not ended"),
        ("nothing to do", "nothing to do"),
        ("paused", "The schedule is paused."),
    ):
        if words in reason:
            return outcome, reason
    return f"? skipped without a known reason: {reason!r}", reason


def _examine_times(story: Story, schedule: Made, flow_runs: list[dict[str, Any]]) -> None:
    """Whether there is one flow run for each of the times, from the first to the last."""
    times = [datetime.fromisoformat(run["expected_start_time"]) for run in flow_runs]
    for earlier, later in pairwise(times):
        seconds = (later - earlier).total_seconds()
        if abs(seconds - schedule.interval) > 0.01:
            what = "is doubled" if seconds < schedule.interval else "is followed by a gap"
            story.findings.append(f"{schedule.name}, {earlier}: {what} ({seconds:g} s)")


def _moment(run: dict[str, Any]) -> str:
    moment = datetime.fromisoformat(run["expected_start_time"])
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def report(story: Story) -> None:
    """The table, and a line for each finding."""
    rows = [
        ("occurrences", story.outcomes.total()),
        *((f"  {name}", count) for name, count in sorted(story.outcomes.items())),
        ("made up after a downtime", story.made_up),
        ("worker killed", story.kills),
        ("jobs that held a dataset", story.holds),
    ]
    print()
    for name, value in rows:
        print(f"{name:<32}{value}")
    print(f"\n{len(story.findings)} findings" + (":" if story.findings else ""))
    for finding in story.findings[:_SHOWN]:
        print(f"- {finding}")


if __name__ == "__main__":
    sys.exit(main())
