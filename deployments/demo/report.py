"""What the demo shows in the terminal: progress while the job runs, then its history."""

import time
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from deployments.demo.client import FractalClient

_POLL_SECONDS = 0.3


def follow(
    client: FractalClient, job: dict[str, Any], workflow_tasks: list[dict[str, Any]], out: Console
) -> dict[str, Any]:
    """Show a progress bar per workflow task until the job has ended. Returns the ended job."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("units"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as progress:
        bars = [
            progress.add_task(task["task"]["name"], total=None, start=False)
            for task in workflow_tasks
        ]
        while True:
            job = client.get(f"/api/v2/project/{job['project_id']}/job/{job['id']}/")
            runs = [client.runs(job, task["id"]) for task in workflow_tasks]
            for bar, own, following in zip(bars, runs, [*runs[1:], []], strict=True):
                if own:
                    has_ended = bool(following) or job["status"] != "submitted"
                    _advance(progress, bar, own[-1], has_ended)
            if job["status"] != "submitted":
                return job
            time.sleep(_POLL_SECONDS)


def _advance(progress: Progress, bar: TaskID, run: dict[str, Any], has_ended: bool) -> None:
    ended = run["num_done_units"] + run["num_failed_units"]
    progress.start_task(bar)
    progress.update(bar, total=ended + run["num_submitted_units"], completed=ended)
    if has_ended:
        progress.stop_task(bar)


def show_history(
    client: FractalClient, job: dict[str, Any], workflow_tasks: list[dict[str, Any]], out: Console
) -> None:
    """Print a table of what ran: units, wall and CPU time, peak memory, per workflow task.

    Below it stands for how much of the job's time no unit ran: that is what the engine takes, and
    importing, which is done once for all units of a task.
    """
    table = Table(title=f"History of job {job['id']} (memory: peak of one unit)")
    table.add_column("Workflow task")
    table.add_column("Status")
    for name in ("Units", "Failed", "Wall", "CPU", "Memory"):
        table.add_column(name, justify="right")
    ran: list[tuple[datetime, datetime]] = []
    for task in workflow_tasks:
        runs = client.runs(job, task["id"])
        units = list(client.units(job, task["id"], runs[-1]["id"])) if runs else []
        table.add_row(task["task"]["name"], *_figures(units))
        ran += [_time_of(unit) for unit in units if unit["started_at"]]
    out.print(table)
    begin, end = (datetime.fromisoformat(job[f"{name}_timestamp"]) for name in ("start", "end"))
    took = (end - begin).total_seconds()
    idle = took - _covered(ran)
    out.print(
        f"The job took {took:.1f} s. For {idle:.1f} s no unit ran: tasks were imported once for"
    )
    out.print("all their units, or the engine was at work.")


def _covered(times: list[tuple[datetime, datetime]]) -> float:
    """Seconds in which at least one of these times was."""
    seconds, last = 0.0, datetime.min.replace(tzinfo=UTC)
    for begin, end in sorted(times):
        seconds += max(0.0, (end - max(begin, last)).total_seconds())
        last = max(last, end)
    return seconds


def _figures(units: list[dict[str, Any]]) -> list[str]:
    measured = [unit for unit in units if unit["started_at"]]
    if not measured:
        return ["not run", "0", "0", "", "", ""]
    failed = sum(unit["status"] == "failed" for unit in units)
    begin = min(_time_of(unit)[0] for unit in measured)
    end = max(_time_of(unit)[1] for unit in measured)
    return [
        "[red]failed" if failed else "[green]done",
        str(len(units)),
        str(failed),
        f"{(end - begin).total_seconds():.1f} s",
        f"{sum(unit['cpu_seconds'] for unit in measured):.1f} s",
        f"{max(unit['max_rss_kb'] for unit in measured) / 1024:.0f} MiB",
    ]


def _time_of(unit: dict[str, Any]) -> tuple[datetime, datetime]:
    begin, end = (datetime.fromisoformat(unit[f"{name}_at"]) for name in ("started", "ended"))
    return begin, end
