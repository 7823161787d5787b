"""The summary of a job tells what its workflow tasks took, whatever became of it."""

import re
from dataclasses import replace
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient

from flows.programs.unit_runner import NOT_PYTHON
from flows.reports.summary import EndedJob, Imports, Work, summary
from flows.units.job_folder import JobFolder, warnings_in
from tests.journal import Journal, Lab, process_of, summary_of

WORK = Work("0 Copy", 2, 3, 2, 1, 4, 185.0, 61.0, 1536.0, 4096)
ENDED = EndedJob("Job done.", 200.0, "/jobs/12", None, [])


def _cells(markdown: str, row: str) -> dict[str, str]:
    """A row of the table in a summary, by the names of its columns."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]
    return next(dict(zip(rows[0], cells, strict=True)) for cells in rows if cells[0] == row)


def test_a_summary_has_figures_as_people_read_them() -> None:
    assert _cells(summary(ENDED, [WORK]), "0 Copy") == {
        "Workflow task": "0 Copy",
        "Images": "2",
        "Units": "3",
        "Done": "2",
        "Failed": "1",
        "Retries": "4",
        "Wall time": "3 min 5 s",
        "CPU time": "1 min 1 s",
        "Median RAM": "1.5 MB",
        "Peak RAM": "4 MB",
    }


def test_what_was_not_measured_is_not_told_as_zero() -> None:
    work = Work("0 Copy", 2, 3, 0, 3, 0, None, None, None, None)
    cells = _cells(summary(ENDED, [work]), "0 Copy")
    assert [cells[name] for name in ("Wall time", "CPU time", "Peak RAM")] == ["-"] * 3


def test_names_and_warnings_are_no_markdown() -> None:
    ended = EndedJob("Job *done*.", 1.0, "/jobs/12", "/home/ann/12", ["a | b"])
    text = summary(ended, [WORK])
    assert r"Job \*done\*" in text
    assert r"- a \| b" in text
    assert "`/jobs/12`" in text
    assert "`/home/ann/12`" in text


@pytest.mark.parametrize(
    ("imports", "told"),
    [
        (Imports(5.1, 1, 74.0), "\nImport 5.1 s once, saved 1 min 14 s.\n"),
        (Imports(12.0, 3, 9.0), "\nImport 12 s in 3 processes, saved 9 s.\n"),
    ],
)
def test_a_summary_tells_what_imports_took_that_many_units_shared(
    imports: Imports, told: str
) -> None:
    assert told in summary(replace(ENDED, imports=imports), [WORK])
    assert "Import" not in summary(ENDED, [WORK])


def test_a_job_without_any_workflow_task_says_so() -> None:
    assert "No workflow task was begun." in summary(ENDED, [])


def test_warnings_are_those_of_the_log_each_once(tmp_path: Any) -> None:
    folder = JobFolder(tmp_path)
    folder.log("0 Copy begins.")
    folder.log("0 Copy: the first\nwith a second line", is_warning=True)
    folder.log("0 Copy: another", is_warning=True)
    folder.log("0 Copy: another", is_warning=True)
    folder.log("Job failed.\n2026-01-01 12:00:00,123 WARNING of a unit")
    assert warnings_in(folder.read_log()) == ["0 Copy: the first", "0 Copy: another"]


async def test_a_job_that_is_done_has_a_row_for_each_task_and_one_for_all(
    lab: Lab, prefect: PrefectClient
) -> None:
    dataset = await lab.dataset("A", "B", "C")
    warn = {"args_parallel": {"warn": True}}
    workflow = await lab.workflow("Copy", ("Process", warn))
    job = await lab.run(workflow, dataset, attribute_filters={"well": ["A", "B"]})
    text = await summary_of(prefect, job)
    for row, images, units in (("0 Copy", "2", "3"), ("1 Process", "2", "2"), ("All", "", "5")):
        cells = _cells(text, row)
        assert (cells["Images"], cells["Units"], cells["Done"]) == (images, units, units)
        assert (cells["Failed"], cells["Retries"]) == ("0", "0")
        assert cells["Wall time"].endswith(" s")
        assert cells["CPU time"].endswith(" s")
        assert cells["Peak RAM"].endswith(" MB")
    assert "Job done." in text
    assert job["working_dir"] in text
    assert "2 of 2 units have warnings in their logs" in text
    assert re.search(r"\nImport [\d.]+ s in 2 processes, saved [\d.]+ s\.\n", text)
    log = job["log"]
    assert "imports for itself" not in log
    assert "0 Copy begins, on 2 of 3 images (well: A or B)." in log
    assert "1 Process begins, on 2 of 5 images (type copy; well: A or B)." in log
    assert "1 Process, parallel: 2 units, 2 at once, on " in log
    assert "Images: 2 new" in log


async def test_units_are_cold_where_somebody_wants_that_or_the_command_is_no_file_of_python(
    lab: Lab, prefect: PrefectClient
) -> None:
    body = {"name": "True", "version": "1", "command_parallel": "true"}
    lab.tasks["True"] = (await lab.ok("POST", "/api/v2/task/", json=body))["id"]
    off = ("Process", {"meta_parallel": {"warm_units": "off"}})
    job = await lab.run(await lab.workflow(off, "True"), await lab.dataset("A", "B"))
    assert (job["status"], job["log"].count("imports for itself")) == ("done", 1)
    why = f"because {NOT_PYTHON}"
    assert f"1 True, parallel: each unit imports for itself, {why}." in job["log"]
    assert "Import" not in await summary_of(prefect, job)


async def test_units_that_fail_alike_make_a_warning_in_the_log_and_in_the_summary(
    lab: Lab, prefect: PrefectClient
) -> None:
    dataset = await lab.dataset("A", "B", "C", "D", "E", "F")
    args = {"args_parallel": {"fail_on": ["A", "B", "C"]}}
    job = await lab.run(await lab.workflow(("Process", args)), dataset)
    assert job["status"] == "failed"
    warning = "3 of 6 units failed for the same reason, exit code 1, which makes one cause likely"
    text = await summary_of(prefect, job)
    assert text.count(warning) == 1
    assert re.search(r"\nImport [\d.]+ s once, ", text)  # for all, however many run at once
    assert job["log"].count(warning) == 1
    assert warnings_in(job["log"])[0].startswith(f"0 Process: {warning}")
    first = f"{dataset['zarr_dir']}/A"
    assert f"3 units: exit code 1 (first: {first})" in job["log"]
    assert "Images: 3 updated." in job["log"]
    cells = _cells(text, "0 Process")
    assert (cells["Done"], cells["Failed"]) == ("3", "3")


async def test_the_work_of_an_interrupted_job_is_told_as_a_whole(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    args = {**journal.args, "seconds": 0.5, "fail_first": ["F"]}
    fields = {"args_parallel": args, "meta_parallel": {"retry": {"max": 1}}}
    workflow = await journal_lab.workflow(("Journal process", fields))
    job = await journal_lab.submit(workflow, await journal_lab.dataset(*"ABCDEF"))
    await journal.reaches(2)
    (await process_of(prefect, job)).kill()
    ended = await journal_lab.ended(job)
    assert ended["status"] == "done"
    assert "0 Journal process goes on after an interruption, with" in ended["log"]
    text = await summary_of(prefect, job)
    cells = _cells(text, "0 Journal process")
    assert (cells["Units"], cells["Done"], cells["Retries"]) == ("6", "6", "1")
    assert "1 unit failed and will run again" in text


async def test_a_job_that_is_stopped_has_a_summary_too(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient
) -> None:
    args = {"args_parallel": {**journal.args, "seconds": 60}}
    workflow = await journal_lab.workflow(("Journal process", args))
    job = await journal_lab.submit(workflow, await journal_lab.dataset(*"ABCD"))
    await journal.begins()
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    ended = await journal_lab.ended(job)
    text = await summary_of(prefect, job)
    assert ended["status"] == "failed"
    assert "stopped" in text
    assert "## Warnings" not in text
    cells = _cells(text, "0 Journal process")
    assert (cells["Units"], cells["Done"], cells["Failed"]) == ("4", "0", "4")
    assert "0 Journal process was broken off after" in ended["log"]
    assert "Job stopped. Stopped through the Fractal API." in ended["log"]
    assert "taken up again" not in ended["log"]  # the one who stops it ends it
