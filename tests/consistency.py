"""Whether what the database says of jobs agrees with what their units wrote down themselves."""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.image_list import read_images
from fractal_models.image_search import ImageSearch
from fractal_models.images import Image
from fractal_models.tables import (
    AccountingRecord,
    DatasetImage,
    DatasetV2,
    HistoryImageCache,
    HistoryRun,
    HistoryUnit,
    JobV2,
)
from tests import journal_tasks

# The tasks of `journal_tasks.py`: name, type, commands.
TASKS: dict[str, dict[str, Any]] = {
    "Journal convert": {"type": "converter_non_parallel", "command_non_parallel": "convert"},
    "Journal convert in two": {
        "type": "converter_compound",
        "command_non_parallel": "convert_init",
        "command_parallel": "convert_compute",
    },
    "Journal process": {"type": "parallel", "command_parallel": "process"},
    "Journal combine": {"type": "non_parallel", "command_non_parallel": "combine"},
    "Journal copy": {
        "type": "compound",
        "command_non_parallel": "copy_init",
        "command_parallel": "copy_compute",
    },
}


# What a unit is known by: the kind of task, and the image that it is for, or `all`.
Unit = tuple[str, str]

THIS_PYTHON = (sys.executable, "-I", "-S", journal_tasks.__file__)
_SHOWN = 3  # of many things that differ


def task_bodies(version: str, command: Sequence[str] = THIS_PYTHON) -> list[dict[str, Any]]:
    """The requests that make the tasks of `journal_tasks.py`, which is executed by a command."""
    python = shlex.join(command)
    return [
        {
            "name": name,
            "version": version,
            **{key: kind if key == "type" else f"{python} {kind}" for key, kind in fields.items()},
        }
        for name, fields in TASKS.items()
    ]


def events(journal: Path, event: str) -> Counter[Unit]:
    """How often units began or ended."""
    lines = map(json.loads, journal.read_text().splitlines())
    return Counter((line["kind"], line["unit"]) for line in lines if line["event"] == event)


@dataclass
class Findings:
    """What is wrong with jobs, a sentence each.

    No mistakes are `killed`, units that were killed with their runner and began again, and
    `ended_twice`, those of them that had just come to their end.
    """

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    ended_twice: list[str] = field(default_factory=list)
    num_units: int = 0

    def expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.wrong.append(f"{what}: {found}, expected {expected}")

    def expect_same(self, what: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
        """Compare many things by name, and show the first that differ."""
        names = {*found, *expected}
        differ = sorted(name for name in names if found.get(name) != expected.get(name))
        shown = [
            f"{name} is {found.get(name)}, expected {expected.get(name)}"
            for name in differ[:_SHOWN]
        ]
        if differ:
            self.wrong.append(f"{what}: {len(differ)} differ: {'; '.join(shown)}")

    def add(self, other: "Findings", about: str) -> None:
        """Take over what is wrong with something."""
        for name in ("lost", "twice", "wrong", "killed", "ended_twice"):
            getattr(self, name).extend(f"{about}: {text}" for text in getattr(other, name))
        self.num_units += other.num_units

    @property
    def faults(self) -> list[str]:
        return self.lost + self.twice + self.wrong


@dataclass
class Expected:
    """What a job does: its units, and the images that it leaves.

    `images` are attributes by URL, `latest` the images that each workflow task ran on, by its id.
    """

    units: Counter[Unit]
    images: dict[str, dict[str, Any]]
    latest: dict[int, set[str]]


def expected_of(tasks: list[dict[str, Any]], zarr_dir: str, listed: list[Image]) -> Expected:
    """What comes of workflow tasks (as a job keeps them), told by what `journal_tasks.py` does."""
    units: Counter[Unit] = Counter()
    images = _before(listed)
    latest: dict[int, set[str]] = {}
    for task in tasks:
        kinds = [
            command.split()[-1]
            for key in ("command_non_parallel", "command_parallel")
            if (command := task["task"][key])
        ]
        if not task["task_type"].startswith("converter"):
            latest[task["id"]] = set(images)
        names = (task["args_non_parallel"] or {}).get("names", ())
        if kinds[0] in ("convert", "convert_init"):
            made = {f"{zarr_dir}/{name}": {"name": name} for name in names}
        elif kinds[0] == "copy_init":
            made = {f"{url}_copy": dict(attributes) for url, attributes in images.items()}
        else:
            value = {"process": 1, "combine": len(images)}[kinds[0]]
            name = {"process": "processed", "combine": "combined"}[kinds[0]]
            made = {url: {**attributes, name: value} for url, attributes in images.items()}
        if task["task_type"] != "parallel":
            units[kinds[0], "all"] += 1
        if task["task"]["command_parallel"]:
            units.update((kinds[-1], url) for url in made)
        images |= made
    return Expected(units, images, latest)


def _before(listed: list[Image]) -> dict[str, dict[str, Any]]:
    """The images that a dataset had before: with no origin, nor the name that converters give."""
    return {
        image["zarr_url"]: {
            name: value
            for name, value in image["attributes"].items()
            if name not in ("processed", "combined")
        }
        for image in listed
        if image.get("origin") is None and "name" not in image["attributes"]
    }


async def examine(session: AsyncSession, job_id: int, journal: Path) -> Findings:
    """Compare a job that should have done all, the first one of its dataset, with a journal."""
    findings = Findings()
    job = await session.get_one(JobV2, job_id)
    dataset = await session.get_one(DatasetV2, job.dataset_id)
    tasks = job.workflow_dump["task_list"]
    listed = await read_images(session, ImageSearch(dataset.id))
    expected = expected_of(tasks, dataset.zarr_dir, listed)
    findings.num_units = expected.units.total()
    may_fail = {
        name
        for task in tasks
        for how in ("fail_first", "spoil_first")
        for name in (task["args_parallel"] or {}).get(how, ())
    }
    compare(findings, journal, expected.units, _killed_of(Path(job.working_dir or "")), may_fail)
    log = (job.log or "").strip().splitlines()
    findings.expect(f"the job, which said last {log[-1:]}", job.status, "done")
    await _examine_history(findings, session, job, dataset, expected.units.total())
    found = {image["zarr_url"]: image["attributes"] for image in listed}
    findings.expect("images listed twice", len(listed) - len(found), 0)
    findings.expect_same("attributes of images", found, expected.images)
    await _examine_image_cache(findings, session, dataset, expected.latest)
    return findings


async def examine_accounting(session: AsyncSession) -> Findings:
    """Compare all that was accounted for with all that is in a database of its own."""
    findings = Findings()
    records = (await session.exec(select(AccountingRecord))).all()
    runs = await session.scalar(select(func.count()).select_from(HistoryRun))
    units = await session.scalar(select(func.count()).select_from(HistoryUnit))
    images = await session.scalar(select(func.count()).select_from(DatasetImage))
    findings.expect("accounting records", len(records), runs)
    findings.expect("units accounted for", sum(record.num_tasks for record in records), units)
    findings.expect("new images accounted for", sum(r.num_new_images for r in records), images)
    return findings


def _killed_of(folder: Path) -> Counter[Unit]:
    """How often units of a job were killed with their runner."""
    killed: Counter[Unit] = Counter()
    for path in folder.glob("*/batches/*/batch.json"):
        batch = json.loads(path.read_text())
        by_index = {
            unit["index"]: (batch["command"][-1], unit["args"].get("zarr_url", "all"))
            for unit in batch["units"]
        }
        for results in path.parent.glob("**/results.jsonl"):  # of the parts, on a cluster
            for line in results.read_text().splitlines():
                killed.update(by_index[index] for index in json.loads(line).get("killed", ()))
    return killed


def compare(
    findings: Findings,
    journal: Path,
    expected: Counter[Unit],
    killed: Counter[Unit],
    may_fail: set[str],
) -> None:
    """Hold a journal against what should have run, and what was killed or may fail at first."""
    begins, ends = events(journal, "begin"), events(journal, "end")
    for unit in sorted(expected | begins | ends):
        times = (
            f"{' of '.join(unit)} began {begins[unit]} times and ended {ends[unit]}, "
            f"expected {expected[unit]}; it was killed {killed[unit]} times"
        )
        fails = Path(unit[1]).name in may_fail
        if ends[unit] < expected[unit]:
            findings.lost.append(times)
        elif begins[unit] > expected[unit] + killed[unit] + fails:
            findings.twice.append(times)
        elif ends[unit] > expected[unit]:
            (findings.ended_twice if killed[unit] else findings.twice).append(times)
        if killed[unit]:
            findings.killed.append(times)


async def _examine_history(
    findings: Findings, session: AsyncSession, job: JobV2, dataset: DatasetV2, num_units: int
) -> None:
    """Whether all runs and units are recorded, in the tables and in the dataset's history."""
    runs = (await session.exec(select(HistoryRun).where(HistoryRun.job_id == job.id))).all()
    found_units = await session.exec(
        select(HistoryUnit).where(col(HistoryUnit.history_run_id).in_([run.id for run in runs]))
    )
    units = found_units.all()
    entries = [entry for entry in dataset.history if entry["job_id"] == job.id]
    orders = sorted(task["order"] for task in job.workflow_dump["task_list"])
    findings.expect("runs", sorted(run.workflowtask_dump["order"] for run in runs), orders)
    findings.expect("statuses of runs", {run.status for run in runs}, {"done"})
    findings.expect("units", len(units), num_units)
    findings.expect(
        "statuses of units", dict(Counter(u.status for u in units)), {"done": num_units}
    )
    findings.expect("units without an end", sum(u.ended_at is None for u in units), 0)
    findings.expect("units whose exit code is not 0", sum(u.exit_code != 0 for u in units), 0)
    findings.expect("history", sorted(e["workflowtask"]["order"] for e in entries), orders)
    findings.expect("units in history", sum(e["num_units"] for e in entries), num_units)
    findings.expect("failed in history", sum(e["num_failed_units"] for e in entries), 0)


async def _examine_image_cache(
    findings: Findings, session: AsyncSession, dataset: DatasetV2, latest: dict[int, set[str]]
) -> None:
    """Whether every image has its final status for every task that ran on it."""
    rows = await session.execute(
        select(HistoryImageCache.workflowtask_id, HistoryImageCache.zarr_url, HistoryUnit.status)
        .join(HistoryUnit, col(HistoryUnit.id) == HistoryImageCache.latest_history_unit_id)
        .where(HistoryImageCache.dataset_id == dataset.id)
    )
    found = {f"task {task}, {url}": status for task, url, status in rows}
    expected = {f"task {task}, {url}": "done" for task, urls in latest.items() for url in urls}
    findings.expect_same("statuses of images", found, expected)
