"""Units that fail run again where that is asked for, and jobs go on after those that failed."""

from pathlib import Path
from typing import Any

import pytest

from fractal_models.images import STATUS_ATTRIBUTE
from tests.journal import Journal
from tests.lab import Lab, eventually

NAMES = ["A", "B", "C"]


def _retried(journal: Journal, times: int, **args: Any) -> tuple[str, dict[str, Any]]:
    """A workflow task whose units run up to so many times more; A fails when it runs first."""
    return (
        "Journal process",
        {
            "args_parallel": {**journal.args, "fail_first": ["A"], **args},
            "meta_parallel": {"retry": {"max": times, "delay_seconds": 0.1}},
        },
    )


async def test_a_unit_that_fails_runs_again_with_a_log_of_its_own(
    journal_lab: Lab, journal: Journal
) -> None:
    dataset = await journal_lab.dataset(*NAMES)
    workflow = await journal_lab.workflow(_retried(journal, 2))
    job = await journal_lab.run(workflow, dataset)
    assert job["status"] == "done"
    assert "1 unit failed and will run again in 0.1 s (attempt 2 of 3)" in job["log"]
    run, units = await journal_lab.history(workflow, dataset)
    assert (run["num_done_units"], run["num_failed_units"]) == (3, 0)
    assert [unit["attempt"] for unit in units] == [2, 1, 1]
    assert sorted(Path(url).name for _, url in journal.began()) == ["A", "A", "B", "C"]
    latest = Path(units[0]["logfile"])
    assert "fails when it runs for the first time" not in latest.read_text()
    first = latest.with_name(f"{latest.stem}.attempt-1.log")
    assert "fails when it runs for the first time" in first.read_text()


async def test_a_unit_that_fails_every_time_fails(lab: Lab) -> None:
    dataset = await lab.dataset(*NAMES)
    fields = {
        "args_parallel": {"fail_on": ["B"]},
        "meta_parallel": {"retry": {"max": 2}},
    }
    workflow = await lab.workflow(("Process", fields))
    job = await lab.run(workflow, dataset)
    assert job["status"] == "failed"
    assert "1 of 3 units failed" in job["log"]
    run, units = await lab.history(workflow, dataset)
    assert (run["num_done_units"], run["num_failed_units"]) == (2, 1)
    assert [unit["attempt"] for unit in units] == [1, 3, 1]


async def test_a_unit_with_a_bad_output_runs_again_too(lab: Lab) -> None:
    dataset = await lab.dataset("A")
    fields = {
        "args_parallel": {"fail_on": ["A"], "how": "output", "output": "not JSON"},
        "meta_parallel": {"retry": {"max": 1}},
    }
    workflow = await lab.workflow(("Process", fields))
    await lab.run(workflow, dataset)
    _, (unit,) = await lab.history(workflow, dataset)
    assert (unit["status"], unit["attempt"]) == ("failed", 2)


async def test_both_phases_of_a_compound_task_may_run_again(
    journal_lab: Lab, journal: Journal
) -> None:
    dataset = await journal_lab.dataset(*NAMES)
    retry = {"retry": {"max": 1}}
    fields = {
        "args_non_parallel": {**journal.args, "fail_first": ["all"]},
        "args_parallel": {**journal.args, "fail_first": ["B_copy"]},
        "meta_non_parallel": retry,
        "meta_parallel": retry,
    }
    workflow = await journal_lab.workflow(("Journal copy", fields))
    assert (await journal_lab.run(workflow, dataset))["status"] == "done"
    _, units = await journal_lab.history(workflow, dataset)
    assert [unit["attempt"] for unit in units] == [2, 1, 2, 1]
    assert len(await journal_lab.images(dataset)) == 6


async def test_a_job_that_waits_to_try_again_can_be_stopped(
    journal_lab: Lab, journal: Journal
) -> None:
    dataset = await journal_lab.dataset(*NAMES)
    name, fields = _retried(journal, 1)
    fields["meta_parallel"]["retry"]["delay_seconds"] = 3600
    workflow = await journal_lab.workflow((name, fields))
    job = await journal_lab.submit(workflow, dataset)
    log = Path(job["working_dir"], "workflow.log")

    async def waits() -> bool:
        return log.exists() and "will run again in 3600 s" in log.read_text()

    await eventually(waits, bool)
    await journal_lab.ok("GET", f"{journal_lab.base}/job/{job['id']}/stop/")
    assert (await journal_lab.ended(job))["status"] == "failed"
    run, _ = await journal_lab.history(workflow, dataset)
    assert (run["num_done_units"], run["num_failed_units"]) == (2, 1)


@pytest.mark.parametrize(
    ("retry", "told"),
    [
        ({"max": -1}, "retry.max: Input should be greater than or equal to 0"),
        ({"max": "2"}, "retry.max: Input should be a valid integer"),
        ({"maximum": 2}, "retry.maximum: Extra inputs are not permitted"),
        ({"delay_seconds": -5}, "retry.delay_seconds: Input should be greater than"),
        (3, "retry: Input should be"),
    ],
)
async def test_a_wrong_retry_is_refused_when_it_is_entered(
    lab: Lab, retry: object, told: str
) -> None:
    workflow = await lab.workflow("Process")
    workflow_task = workflow["task_list"][0]
    answer = await lab.client.patch(
        f"{lab.base}/workflow/{workflow['id']}/wftask/{workflow_task['id']}/",
        json={"meta_parallel": {"retry": retry}},
    )
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"][-1] == "meta_parallel"
    assert told in problem["msg"]


async def test_going_on_after_a_failed_job_costs_nothing_for_what_is_done(
    journal_lab: Lab, journal: Journal
) -> None:
    dataset = await journal_lab.dataset(*NAMES)
    args = {"args_parallel": {**journal.args, "fail_first": ["A"]}}
    workflow = await journal_lab.workflow(
        ("Journal process", args), ("Journal combine", {"args_non_parallel": journal.args})
    )
    assert (await journal_lab.run(workflow, dataset))["status"] == "failed"
    again = await journal_lab.run(
        workflow,
        dataset,
        first_task_index=0,
        attribute_filters={STATUS_ATTRIBUTE: ["failed", "unset", "submitted"]},
    )
    assert again["status"] == "done"
    processed = [Path(url).name for kind, url in journal.began() if kind == "process"]
    assert sorted(processed) == ["A", "A", "B", "C"]
    images = await journal_lab.images(dataset)
    assert all(image["attributes"]["combined"] == 3 for image in images.values())
    run, units = await journal_lab.history(workflow, dataset)
    assert (run["num_done_units"], len(units)) == (1, 1)
