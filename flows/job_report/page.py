"""The HTML of a report: one file without scripts, which needs nothing else. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from flows.job_report.charts import Bar, Row, at_once, histogram, time_line
from flows.job_report.failures import Cause, causes_of
from flows.records.report import NamedUnit, ReportedRun, Units
from flows.reports.quantities import count, duration, memory
from flows.reports.text import job_title, printable
from fractal_models.tables import Allocation, JobV2

_MOST_BATCHES = 40  # that are drawn, of a workflow task
_LONGEST_ARGUMENTS = 20_000  # characters
_LONGEST_LOG = 100_000


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a report shows: a job, its HistoryRuns, what it had reserved, the ends of logs by path.

    `until` is its end, or now if it runs.
    """

    job: JobV2
    until: datetime
    runs: Sequence[ReportedRun]
    allocations: Sequence[Allocation]
    logs: Mapping[str, str]


def page(facts: JobFacts) -> str:
    """The report as HTML, of at most some hundred KB per workflow task."""
    job, since = facts.job, facts.job.start_timestamp.timestamp()
    seconds = facts.until.timestamp() - since
    spans = [
        (begin - since, end - since)
        for run in facts.runs
        for begin, end in zip(run.units.started_at, run.units.ended_at, strict=True)
    ]
    return _template().render(
        title=printable(job_title(job)),
        status=job.status,
        how=printable((job.log or "").partition("\n")[0]) if job.status == "failed" else "",
        head=_head(job, seconds),
        time_line=Markup(time_line(_rows(facts, since), seconds, "Time of tasks and batches"))
        if facts.runs
        else "",
        at_once=Markup(at_once(spans, seconds, "Units at once")) if spans else "",
        tasks=[_task(run, facts) for run in facts.runs],
        log=printable(_shortened(job.log or "", _LONGEST_LOG)),
    )


@cache
def _template() -> Template:
    places = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("page.html")


def _head(job: JobV2, seconds: float) -> list[tuple[str, str]]:
    began = job.start_timestamp.isoformat(" ", "seconds")
    ended = job.end_timestamp.isoformat(" ", "seconds") if job.end_timestamp else "not yet"
    return [
        ("Project", printable(job.project_dump["name"])),
        ("User", job.user_email),
        ("Submitted", began),
        ("Ended", ended),
        ("From submission to end" if job.end_timestamp else "Since submission", duration(seconds)),
        ("Folder", job.working_dir or "none"),
        ("Fractal version", job.fractal_server_version),
    ]


def _rows(facts: JobFacts, since: float) -> list[Row]:
    """Each workflow task, and its batches below it."""
    rows = []
    for run in facts.runs:
        began = run.started_at.timestamp()
        end = max([*run.units.ended_at, began]) if run.status != "submitted" else None
        until = facts.until.timestamp() if end is None else end
        title = f"{_title(run)}: {run.status}, {duration(until - began)}"
        rows.append(Row(_title(run), [Bar(began - since, until - since, run.status, title)]))
        batches = [each for each in facts.allocations if each.history_run_id == run.id]
        rows += [_row_of_batch(each, since) for each in batches[:_MOST_BATCHES]]
        if more := len(batches) - _MOST_BATCHES:
            rows += [Row(f"  and {more} more", [])] if more > 0 else []
    return rows


def _row_of_batch(batch: Allocation, since: float) -> Row:
    begin, end = batch.started_at.timestamp(), batch.ended_at.timestamp()
    where = f"SLURM job {batch.slurm_job_id}" if batch.slurm_job_id else "batch"
    units = count(batch.num_units, "unit")
    title = f"{where} on {batch.host}: {units}, {duration(end - begin)}"
    return Row(f"  {where}, {units}", [Bar(begin - since, end - since, "units", title)])


def _title(run: ReportedRun) -> str:
    """Of a task for people; a database that was adopted may know little of it."""
    dump = run.workflow_task
    name = dump.get("alias") or _task_of(run).get("name") or f"run {run.id}"
    return printable(f"{dump.get('order', '')} {name}".strip())


def _task_of(run: ReportedRun) -> dict[str, Any]:
    return run.workflow_task.get("task") or {}


@dataclass(frozen=True, slots=True)
class _Task:
    """What the page shows of a workflow task."""

    title: str
    status: str
    facts: Sequence[tuple[str, str]]
    charts: Sequence[tuple[str, Markup]]
    causes: Sequence[Cause]
    not_read: str
    most_memory: Sequence[Mapping[str, str]]
    arguments: str


def _task(run: ReportedRun, facts: JobFacts) -> _Task:
    read = len(run.failed)
    batches = [each for each in facts.allocations if each.history_run_id == run.id]
    return _Task(
        title=_title(run),
        status=run.status,
        facts=_facts_of(run, batches),
        charts=_charts(run, batches),
        causes=causes_of(run.failed, facts.logs),
        not_read=f"The logs of the first {read} were read." if read < run.num_failed else "",
        most_memory=[_demanding(unit) for unit in run.most_memory],
        arguments=_arguments(run.workflow_task),
    )


def _facts_of(run: ReportedRun, batches: Sequence[Allocation]) -> list[tuple[str, str]]:
    again = f", {run.num_again} run again" if run.num_again else ""
    facts = [
        ("Units", f"{run.num_units}: {run.num_done} done, {run.num_failed} failed{again}"),
        ("Images available", str(run.num_available_images)),
        ("Task", _version(run)),
        ("CPU time used", duration(sum(run.units.cpu_seconds))),
    ]
    if run.units.ended_at:
        asked = _asked_memory(batches)
        told = f", asked {memory(asked)}" if asked is not None else ""
        facts.append(("Memory of a unit", f"{_spread(run.units.max_rss_kb, memory)}{told}"))
        facts.append(("Time of a unit", _spread(_seconds(run.units), duration)))
    if reserved := _reserved(batches):
        facts.append(("Reserved", reserved))
    return facts


def _version(run: ReportedRun) -> str:
    task, group = _task_of(run), run.task_group or {}
    package = " ".join(str(group[key]) for key in ("pkg_name", "version") if group.get(key))
    python = f", Python {group['python_version']}" if group.get("python_version") else ""
    version = f" {task['version']}" if task.get("version") and not package else ""
    name = task.get("name") or "not known"
    return printable(f"{name}{version}{f' of {package}' if package else ''}{python}")


def _reserved(batches: Sequence[Allocation]) -> str:
    """What SLURM reserved for a workflow task; empty where it reserved nothing."""
    hours = [(each, (each.ended_at - each.started_at).total_seconds() / 3600) for each in batches]
    told = [
        (sum((getattr(each, name) or 0) * time for each, time in hours) / unit, word)
        for name, unit, word in (
            ("cpus", 1, "CPU hours"),
            ("mem_mb", 1024, "GB hours"),
            ("gpus", 1, "GPU hours"),
        )
    ]
    return ", ".join(f"{amount:.3g} {word}" for amount, word in told if amount)


def _charts(run: ReportedRun, batches: Sequence[Allocation]) -> list[tuple[str, Markup]]:
    """A histogram with its heading for each measure; none if nothing was measured."""
    units = run.units
    if not units.ended_at:
        return []
    asked, of_task = _asked_memory(batches), f"of units of {_title(run)}"
    return [
        (
            "Memory of units",
            Markup(histogram(units.max_rss_kb, memory, f"Memory {of_task}", asked)),
        ),
        ("Time of units", Markup(histogram(_seconds(units), duration, f"Time {of_task}"))),
        ("CPU time of units", Markup(histogram(units.cpu_seconds, duration, f"CPU {of_task}"))),
    ]


def _seconds(units: Units) -> list[float]:
    return [
        max(end - begin, 0.0) for begin, end in zip(units.started_at, units.ended_at, strict=True)
    ]


def _spread(values: Sequence[float], read: Callable[[float], str]) -> str:
    return f"median {read(median(values))}, at most {read(max(values))}"


def _asked_memory(batches: Sequence[Allocation]) -> float | None:
    """The memory (KiB) that SLURM reserved for each unit, at most; None if it reserved none."""
    asked = [each.mem_mb * 1024 / each.at_once for each in batches if each.mem_mb and each.at_once]
    return max(asked, default=None)


def _demanding(unit: NamedUnit) -> dict[str, str]:
    return {
        "images": printable(", ".join(unit.zarr_urls)) or "no images",
        "memory": memory(unit.max_rss_kb or 0),
        "seconds": duration(unit.seconds or 0.0),
    }


def _arguments(dump: Mapping[str, Any]) -> str:
    names = ("args_non_parallel", "args_parallel", "meta_non_parallel", "meta_parallel")
    told = {name: dump[name] for name in (*names, "type_filters") if dump.get(name)}
    return printable(_shortened(json.dumps(told, indent=2, ensure_ascii=False), _LONGEST_ARGUMENTS))


def _shortened(text: str, longest: int) -> str:
    """The text; of a longer one its two ends."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n\n[... {len(text) - longest} characters left out ...]\n\n{text[-half:]}"
