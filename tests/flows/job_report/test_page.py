"""The report of a job is one page, of a bounded size, that shows what is known and no more."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

from flows.job_report.page import JobFacts, page
from flows.records.report import NamedUnit, ReportedRun, Units
from fractal_models.tables import Allocation, JobV2
from fractal_models.tables.columns import now

BEGAN = now() - timedelta(hours=2)


def a_job(**fields: Any) -> JobV2:
    return JobV2(
        **{
            "id": 7,
            "project_id": 1,
            "user_email": "me@example.org",
            "dataset_dump": {"name": "plate"},
            "workflow_dump": {"name": "segment"},
            "project_dump": {"name": "screen"},
            "fractal_server_version": "2.25.4",
            "working_dir": "/jobs/7",
            "first_task_index": 0,
            "last_task_index": 0,
            "start_timestamp": BEGAN,
            "end_timestamp": BEGAN + timedelta(hours=1),
            "status": "done",
            "log": "Job done.\n",
            **fields,
        }
    )


def units(number: int) -> Units:
    """So many units, two at once, of three minutes each; each needs more memory than the last."""
    begins = [BEGAN.timestamp() + 60 + each // 2 * 180 for each in range(number)]
    return Units(
        begins,
        [begin + 170 for begin in begins],
        [100_000 + 1000 * each for each in range(number)],
        [160.0] * number,
    )


def a_run(number: int = 8, **fields: Any) -> ReportedRun:
    return ReportedRun(
        **{
            "id": 3,
            "status": "done",
            "started_at": BEGAN + timedelta(seconds=50),
            "num_available_images": number,
            "workflow_task": {
                "order": 0,
                "alias": None,
                "task": {"name": "Threshold"},
                "args_parallel": {"level": 3},
            },
            "task_group": {"pkg_name": "some-tasks", "version": "1.2", "python_version": "3.11"},
            "num_units": number,
            "num_done": number,
            "num_failed": 0,
            "num_again": 0,
            "units": units(number),
            "failed": (),
            "most_memory": (NamedUnit("/jobs/7/0/000007.log", ["/z/H"], 0, 170.0, 107_000),),
            **fields,
        }
    )


def an_allocation(number: int, **fields: Any) -> Allocation:
    return Allocation(
        **{
            "job_id": 7,
            "batch": f"0_threshold/batches/parallel/{number:06d}",
            "runner": 0,
            "history_run_id": 3,
            "slurm_job_id": f"12_{number}",
            "host": "node1",
            "num_units": 4,
            "at_once": 2,
            "cpus": 4,
            "mem_mb": 8192,
            "gpus": 0,
            "started_at": BEGAN + timedelta(minutes=1),
            "ended_at": BEGAN + timedelta(minutes=31),
            "cpu_seconds": 640.0,
            "gb_seconds": 1.0,
            **fields,
        }
    )


def facts(*runs: ReportedRun, allocations: Sequence[Allocation] = (), **fields: Any) -> JobFacts:
    job = a_job(**fields)
    return JobFacts(job, job.end_timestamp or now(), runs, allocations, {})


class Reader(HTMLParser):
    """The words of a page, and what it would ask for or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.needs: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        asks = {"src", "href", "srcset", "data", "action", "style"}
        active = {"script", "link", "iframe", "object", "embed", "img", "form", "base"}
        self.needs += [tag] if tag in active else []
        self.needs += [name for name, _ in attrs if name in asks or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_page_tells_what_a_task_was_what_it_took_and_what_was_reserved_for_it() -> None:
    text = Reader(page(facts(a_run(), allocations=[an_allocation(0), an_allocation(1)]))).text
    for words in (
        "job 7 · segment on plate",
        "From submission to end 1 h",
        "Units 8: 8 done, 0 failed",
        "Task Threshold of some-tasks 1.2, Python 3.11",
        "CPU time used 21 min 20 s",
        "Memory of a unit median 101 MB, at most 104 MB, asked 4 GB",
        "Time of a unit median 2 min 50 s, at most 2 min 50 s",
        "Reserved 4 CPU hours, 8 GB hours",
        "SLURM job 12_1 on node1: 4 units, 30 min",
        "units at once, at most 2",
        "asked: 4 GB",
        '"level": 3',
        "/z/H 104 MB 2 min 50 s",
    ):
        assert words in text


def test_failures_are_told_by_cause_with_the_end_of_the_first_log() -> None:
    failed = [
        NamedUnit(f"/jobs/7/{name}.log", [f"/z/{name}"], 1, 2.0, 1000) for name in ("A", "B", "C")
    ] + [NamedUnit("/jobs/7/D.log", ["/z/D"], None, None, None)]
    run = a_run(status="failed", failed=failed, num_failed=9, num_done=0)
    logs = {f"/jobs/7/{name}.log": f"Reading\nOSError: no file /z/{name}/0" for name in "ABC"}
    text = Reader(page(replace(facts(run, status="failed"), logs=logs))).text
    assert "3 units: exit code 1: OSError: no file /z/A/0 First: /z/A Reading OSError" in text
    assert "1 unit: no result First: /z/D" in text
    assert "The logs of the first 4 were read." in text


def test_a_page_needs_nothing_and_runs_nothing_that_a_task_wrote() -> None:
    bad = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    failed = [NamedUnit("/l", [bad], 1, 1.0, 1)]
    task = {"order": 0, "alias": bad, "task": {"name": bad}, "args_parallel": {bad: bad}}
    run = a_run(workflow_task=task, failed=failed, num_failed=1)
    allocation = an_allocation(0, host=bad, slurm_job_id=bad)
    told = replace(facts(run, allocations=[allocation], log=bad, status="failed"), logs={"/l": bad})
    reader = Reader(page(told))
    assert reader.needs == []
    assert reader.text.count("<script>alert(1)</script>") >= 8  # as words


def test_the_page_of_a_job_that_began_nothing_is_short() -> None:
    text = Reader(page(facts(log=None, status="submitted", end_timestamp=None))).text
    assert "Ended not yet" in text
    assert "Time" not in text


def test_a_page_of_many_units_stays_small() -> None:
    parts = [an_allocation(number) for number in range(500)]
    most = "x" * 1_000_000
    run = a_run(20_000, workflow_task={**a_run().workflow_task, "args_parallel": {"a": most}})
    text = page(facts(run, allocations=parts, log=most))
    assert len(text) < 300_000
    assert "and 460 more" in text


def test_units_of_which_nothing_was_measured_have_no_charts() -> None:
    text = page(facts(a_run(3, units=Units((), (), (), ()), most_memory=())))
    assert len(re.findall("<svg", text)) == 1  # the time line


def test_a_run_of_which_little_is_known_is_told_all_the_same() -> None:
    text = Reader(page(facts(a_run(workflow_task={}, task_group=None)))).text
    assert "run 3: done" in text
    assert "Task not known" in text
