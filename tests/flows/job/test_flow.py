"""Jobs, from submission to their end, for every type of task and every kind of failure."""

import asyncio
import io
import json
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import make_url
from sqlmodel import col, select

from deployments.stack import Stack
from fractal_models.database import open_database
from fractal_models.tables import AccountingRecord, DatasetV2
from tests.lab import Lab, eventually


async def test_a_converter_adds_images_to_an_empty_dataset(lab: Lab) -> None:
    dataset = await lab.dataset()
    workflow = await lab.workflow(("Convert", {"args_non_parallel": {"names": ["A01", "A02"]}}))
    job = await lab.run(workflow, dataset)
    assert job["status"] == "done"
    images = await lab.images(dataset)
    assert {name: image["attributes"] for name, image in images.items()} == {
        "A01": {"well": "A01"},
        "A02": {"well": "A02"},
    }
    assert all(image["types"] == {"raw": True} for image in images.values())


async def test_a_compound_converter_makes_its_images_in_two_phases(lab: Lab) -> None:
    dataset = await lab.dataset()
    args = {"args_non_parallel": {"names": ["B01", "B02", "B03"]}}
    workflow = await lab.workflow(("Convert in two", args))
    assert (await lab.run(workflow, dataset))["status"] == "done"
    assert sorted(await lab.images(dataset)) == ["B01", "B02", "B03"]
    run, units = await lab.history(workflow, dataset)
    assert run["num_done_units"] == 4
    assert [len(unit["zarr_urls"]) for unit in units] == [0, 1, 1, 1]


async def test_a_parallel_task_without_output_sets_its_output_types(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B", types={"processed": False})
    workflow = await lab.workflow("Process")
    assert (await lab.run(workflow, dataset))["status"] == "done"
    images = await lab.images(dataset)
    assert [image["types"] for image in images.values()] == [{"processed": True}] * 2


async def test_a_non_parallel_task_sees_all_images_and_may_remove_some(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B", "C")
    workflow = await lab.workflow("Combine")
    assert (await lab.run(workflow, dataset))["status"] == "done"
    images = await lab.images(dataset)
    assert list(images) == ["A"]
    assert images["A"]["attributes"] == {"well": "A", "combined": 3}


async def test_a_compound_task_makes_images_that_start_from_their_origin(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B", types={"raw": True})
    workflow = await lab.workflow(("Copy", {"args_non_parallel": {"suffix": "_x"}}))
    assert (await lab.run(workflow, dataset))["status"] == "done"
    images = await lab.images(dataset)
    assert list(images) == ["A", "B", "A_x", "B_x"]
    assert images["B_x"]["origin"] == images["B"]["zarr_url"]
    assert images["B_x"]["attributes"] == {"well": "B"}
    assert images["B_x"]["types"] == {"raw": True, "copy": True}


async def test_the_output_types_of_a_task_filter_the_images_of_the_next(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B")
    workflow = await lab.workflow("Copy", "Process")
    assert (await lab.run(workflow, dataset))["status"] == "done"
    _, units = await lab.history(workflow, dataset, order=1)
    names = sorted(Path(unit["zarr_urls"][0]).name for unit in units)
    assert names == ["A_copy", "B_copy"]


async def test_filters_and_task_indices_limit_what_a_job_does(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B", "C")
    workflow = await lab.workflow("Combine", "Process")
    job = await lab.run(
        workflow, dataset, first_task_index=1, attribute_filters={"well": ["A", "C"]}
    )
    assert job["status"] == "done"
    images = await lab.images(dataset)
    processed = [name for name, image in images.items() if image["types"].get("processed")]
    assert processed == ["A", "C"]
    assert len(images) == 3  # Combine did not run


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"how": "exit"}, "this image cannot be processed"),
        ({"how": "signal"}, None),
        ({"how": "output", "output": "not JSON"}, "invalid"),
        ({"how": "output", "output": {"image_list_update": []}}, "unknown field"),
    ],
)
async def test_a_unit_that_fails_leaves_the_others_alone(
    lab: Lab, how: dict[str, Any], told: str | None
) -> None:
    dataset = await lab.dataset("A", "B", "C")
    args = {"args_parallel": {"fail_on": ["B"], **how}}
    workflow = await lab.workflow(("Process", args))
    job = await lab.run(workflow, dataset)
    assert job["status"] == "failed"
    assert "1 of 3 units failed" in job["log"]
    images = await lab.images(dataset)
    processed = [name for name, image in images.items() if image["types"].get("processed")]
    assert processed == ["A", "C"]
    run, units = await lab.history(workflow, dataset)
    assert (run["num_done_units"], run["num_failed_units"]) == (2, 1)
    failed = next(unit for unit in units if unit["status"] == "failed")
    log = Path(failed["logfile"]).read_text()
    assert "processing" in log
    assert told is None or told in log


async def test_the_units_of_a_compound_task_fail_together_but_what_some_made_is_kept(
    lab: Lab,
) -> None:
    dataset = await lab.dataset("A", "B")
    workflow = await lab.workflow(("Copy", {"args_parallel": {"fail_on": ["B_copy"]}}))
    job = await lab.run(workflow, dataset)
    assert job["status"] == "failed"
    assert list(await lab.images(dataset)) == ["A", "B", "A_copy"]
    run, _ = await lab.history(workflow, dataset)
    assert (run["num_done_units"], run["num_failed_units"]) == (0, 3)
    shown = job["log"].splitlines()[:3]
    assert shown[0].startswith(f"JOB ERROR in Fractal job {job['id']}: 0 Copy: 1 of 3 units failed")
    assert shown[1:] == ["TRACEBACK:", "this copy cannot be made"]


async def test_units_fail_together_where_what_they_made_cannot_be_taken_over(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B")
    gone = {"image_list_removals": ["/data/gone"]}
    args = {"args_parallel": {"fail_on": ["B"], "how": "output", "output": gone}}
    workflow = await lab.workflow(("Process", args))
    job = await lab.run(workflow, dataset)
    assert job["status"] == "failed"
    assert job["log"].startswith(f"JOB ERROR in Fractal job {job['id']}: 0 Process: ")
    assert "remove '/data/gone'" in job["log"].splitlines()[0]
    assert list(await lab.images(dataset)) == ["A", "B"]
    run, _ = await lab.history(workflow, dataset)
    assert (run["num_done_units"], run["num_failed_units"]) == (0, 2)
    request = {"attribute_filters": {"__wftask_dataset_image_status__": ["failed", "unset"]}}
    again = await lab.run(workflow, dataset, **request)
    assert "0 Process begins, on 2 of 2 images" in again["log"]


async def test_numbers_are_kept_on_their_way_through_a_task(lab: Lab) -> None:
    dataset = await lab.dataset("A")
    url = f"{dataset['zarr_dir']}/A"
    numbers = {"whole": 10**25, "real": 1.0, "large": 1e25}
    output = {"image_list_updates": [{"zarr_url": url, "attributes": numbers}]}
    args = {"args_parallel": {"fail_on": ["A"], "how": "output", "output": output}}
    job = await lab.run(await lab.workflow(("Process", args)), dataset)
    assert job["status"] == "done", job["log"]
    attributes = (await lab.images(dataset))["A"]["attributes"]
    assert {key: repr(attributes[key]) for key in numbers} == {
        key: repr(value) for key, value in numbers.items()
    }


async def test_images_are_available_to_a_task_by_its_type_filters(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B", "C", types={"raw": True})
    request = {"attribute_filters": {"well": ["A"]}, "type_filters": {"raw": True}}
    workflow = await lab.workflow("Process")
    job = await lab.run(workflow, dataset, **request)
    assert job["status"] == "done"
    query = {"dataset_id": dataset["id"], "workflow_id": workflow["id"]}
    latest = await lab.ok("GET", f"{lab.base}/latest-job/", params=query)
    (status,) = latest["task_statuses"].values()
    assert (status["num_available_images"], status["num_done_images"]) == (3, 1)


async def test_tasks_after_a_failed_one_do_not_run(lab: Lab) -> None:
    dataset = await lab.dataset("A")
    workflow = await lab.workflow(("Process", {"args_parallel": {"fail_on": ["A"]}}), "Combine")
    assert (await lab.run(workflow, dataset))["status"] == "failed"
    query = {"dataset_id": dataset["id"], "workflowtask_id": workflow["task_list"][1]["id"]}
    assert await lab.ok("GET", f"{lab.base}/status/run/", params=query) == []


async def test_a_task_without_images_fails_and_names_the_filters(lab: Lab) -> None:
    dataset = await lab.dataset("A")
    job = await lab.run(await lab.workflow("Process"), dataset, type_filters={"is_3D": True})
    assert job["status"] == "failed"
    assert "No image to process" in job["log"]
    assert "is_3D" in job["log"]


async def test_arguments_that_do_not_fit_are_told_in_the_log(lab: Lab) -> None:
    task = {"name": "With schema", "version": "1", "command_parallel": "true"}
    schema = {"properties": {"level": {"type": "integer"}}, "required": ["level"]}
    made = await lab.ok("POST", "/api/v2/task/", json={**task, "args_schema_parallel": schema})
    lab.tasks["With schema"] = made["id"]
    workflow = await lab.workflow("With schema")
    job = await lab.run(workflow, await lab.dataset("A"))
    assert job["status"] == "done"
    assert "0 With schema: args_parallel: level is required and not set." in job["log"]


async def test_a_missing_executable_is_named_in_the_log_of_the_unit(lab: Lab) -> None:
    task = await lab.ok(
        "POST",
        "/api/v2/task/",
        json={"name": "Missing", "version": "1", "command_parallel": "/no/such/program"},
    )
    lab.tasks["Missing"] = task["id"]
    dataset = await lab.dataset("A")
    workflow = await lab.workflow("Missing")
    assert (await lab.run(workflow, dataset))["status"] == "failed"
    _, units = await lab.history(workflow, dataset)
    assert "/no/such/program" in Path(units[0]["logfile"]).read_text()


async def test_what_a_unit_took_and_whether_it_warned_is_recorded(lab: Lab) -> None:
    dataset = await lab.dataset("A")
    workflow = await lab.workflow(("Process", {"args_parallel": {"seconds": 0.2, "warn": True}}))
    await lab.run(workflow, dataset)
    run, (unit,) = await lab.history(workflow, dataset)
    assert run["num_units_with_warnings"] == 1
    assert unit["has_warnings"]
    assert unit["exit_code"] == 0
    assert unit["ended_at"] > unit["started_at"]
    assert unit["max_rss_kb"] > 1000
    assert unit["cpu_seconds"] > 0
    assert unit["attempt"] == 1


async def test_the_statuses_of_images_follow_their_latest_unit(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B")
    workflow = await lab.workflow(("Process", {"args_parallel": {"fail_on": ["B"]}}))
    await lab.run(workflow, dataset)
    page = await lab.ok(
        "POST",
        f"{lab.base}/status/images/",
        params={"dataset_id": dataset["id"], "workflowtask_id": workflow["task_list"][0]["id"]},
        json={},
    )
    statuses = {
        Path(image["zarr_url"]).name: image["attributes"]["__wftask_dataset_image_status__"]
        for image in page["items"]
    }
    assert statuses == {"A": "done", "B": "failed"}


async def test_the_job_folder_is_zipped_and_served(lab: Lab) -> None:
    dataset = await lab.dataset("A")
    job = await lab.run(await lab.workflow("Process"), dataset)
    answer = await lab.client.get(f"{lab.base}/job/{job['id']}/download/")
    assert answer.headers["content-type"] == "application/x-zip-compressed"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {"workflow.log", "0_process/par-000000.log"} <= set(archive.namelist())
        args = json.loads(archive.read("0_process/par-000000.args.json"))
    assert args == {"zarr_url": f"{dataset['zarr_dir']}/A"}


async def test_stopping_a_job_ends_its_units_and_leaves_it_failed(lab: Lab) -> None:
    dataset = await lab.dataset("A", "B", "C", "D", "E")
    workflow = await lab.workflow(("Process", {"args_parallel": {"seconds": 50}}))
    job = await lab.submit(workflow, dataset)

    async def running() -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter()
            if dataset["zarr_dir"] in _arguments_of(process)
        ]

    await eventually(running, bool)
    await lab.ok("GET", f"{lab.base}/job/{job['id']}/stop/")
    ended = await lab.ended(job)
    assert ended["status"] == "failed"
    assert "stopped" in ended["log"]
    assert await running() == []
    run, _ = await lab.history(workflow, dataset)
    assert run["num_failed_units"] == 5
    images = await lab.images(dataset)
    assert not any(image["types"] for image in images.values())


def _arguments_of(process: psutil.Process) -> str:
    """The content of a unit's argument file, if the process is a unit."""
    try:
        words = process.cmdline()
        return Path(words[words.index("--args-json") + 1]).read_text()
    except (psutil.Error, ValueError, OSError):
        return ""


async def test_the_prefect_run_and_the_job_tell_the_same_story(lab: Lab, prefect: Any) -> None:
    dataset = await lab.dataset("A", "B")
    workflow = await lab.workflow("Copy", ("Process", {"args_parallel": {"fail_on": ["A_copy"]}}))
    job = await lab.run(workflow, dataset)
    flow_run = await prefect.read_flow_run(job["flow_run_id"])
    assert flow_run.name == f"job {job['id']} · {workflow['name']} on images"
    assert flow_run.state.is_failed()
    of_job = {"id": {"any_": [job["flow_run_id"]]}}

    async def task_runs() -> list[tuple[str, str]]:
        found = await _read(prefect, "/task_runs/filter", flow_runs=of_job)
        return sorted((run["name"], run["state_type"]) for run in found)

    def have_ended(runs: list[tuple[str, str]]) -> bool:
        return len(runs) == 5 and {state for _, state in runs} <= {"COMPLETED", "FAILED"}

    # Task runs, and their ends, reach the server as events, a moment later.
    assert await eventually(task_runs, have_ended) == [
        ("0 Copy", "COMPLETED"),
        ("0 Copy, init: 1 unit", "COMPLETED"),
        ("0 Copy, parallel: 2 units", "COMPLETED"),
        ("1 Process", "FAILED"),
        ("1 Process, parallel: 2 units", "COMPLETED"),
    ]
    artifacts = await _read(prefect, "/artifacts/filter", flow_runs=of_job)
    progress = {a["key"]: a["data"] for a in artifacts if a["type"] == "progress"}
    assert progress == {
        f"job-{job['id']}-0-copy-progress": 100.0,
        f"job-{job['id']}-1-process-progress": 100.0,
    }
    (table,) = (a for a in artifacts if a["type"] == "table")
    (row,) = json.loads(table["data"])
    assert row["images"].endswith("A_copy")
    assert (row["reason"], row["exit"], row["attempt"]) == ("exit code 1", "1", 1)
    assert "this image cannot be processed" in row["log"]
    told = {line.split(" ", 2)[2] for line in job["log"].splitlines() if " begins, " in line}
    assert told

    async def messages() -> set[str]:
        logs = {"flow_run_id": {"any_": [job["flow_run_id"]]}}
        return {log["message"] for log in await _read(prefect, "/logs/filter", logs=logs)}

    said = await eventually(messages, lambda found: told <= found)  # they come in batches
    assert not [message for message in said if "Traceback" in message]


async def _read(prefect: Any, path: str, **body: Any) -> list[dict[str, Any]]:
    return (await prefect._client.post(path, json=body)).json()


async def test_history_and_accounting_count_each_workflow_task_once(lab: Lab, stack: Stack) -> None:
    dataset = await lab.dataset("A", "B")
    workflow = await lab.workflow("Copy", "Process")
    job = await lab.run(workflow, dataset)
    url = make_url(stack.environment["FRACTAL_DATABASE_URL"])
    async with open_database(url) as sessions, sessions() as session:
        row = await session.get_one(DatasetV2, dataset["id"])
        since = datetime.fromisoformat(job["start_timestamp"])
        records = await session.exec(
            select(AccountingRecord)
            .where(AccountingRecord.timestamp > since)
            .order_by(col(AccountingRecord.id))
        )
        counted = [(record.num_tasks, record.num_new_images) for record in records]
    assert counted == [(3, 2), (2, 0)]
    assert [
        (
            entry["workflowtask"]["name"],
            entry["status"],
            entry["num_units"],
            entry["num_new_images"],
        )
        for entry in row.history
    ] == [("Copy", "done", 3, 2), ("Process", "done", 2, 0)]


async def test_a_job_is_accounted_for_when_its_user_got_another_email_meanwhile(
    lab: Lab, stack: Stack, gate: Path
) -> None:
    body = {
        "email": "before@example.org",
        "password": "secret",
        "profile_id": 1,
        "project_dirs": [str(lab.zarr_dir)],
    }
    user = await lab.ok("POST", "/auth/register/", json=body)
    await lab.ok("PATCH", f"/auth/users/{user['id']}/", json={"is_verified": True})
    credentials = {"username": body["email"], "password": body["password"]}
    login = await lab.ok("POST", "/auth/token/login/", data=credentials)
    headers = {"Authorization": f"Bearer {login['access_token']}"}
    async with httpx.AsyncClient(base_url=stack.api_url, headers=headers) as client:
        theirs = Lab(client, lab.zarr_dir)
        theirs.tasks = lab.tasks
        theirs.project_id = (await theirs.ok("POST", "/api/v2/project/", json={"name": "x"}))["id"]
        dataset = await theirs.dataset("A")
        workflow = await theirs.workflow(("Process", {"args_parallel": {"until": str(gate)}}))
        job = await theirs.submit(workflow, dataset)
        await eventually(lambda: asyncio.to_thread(Path(job["working_dir"]).exists), bool)
        change = {"email": "after@example.org", "is_verified": True}
        await lab.ok("PATCH", f"/auth/users/{user['id']}/", json=change)
        gate.touch()
        assert (await theirs.ended(job))["user_email"] == "after@example.org"
    url = make_url(stack.environment["FRACTAL_DATABASE_URL"])
    async with open_database(url) as sessions, sessions() as session:
        mine = select(AccountingRecord).where(AccountingRecord.user_id == user["id"])
        assert [record.num_tasks for record in await session.exec(mine)] == [1]


@pytest.mark.parametrize("seconds_later", [0.0, 0.3, 0.5, 0.7, 0.9])
async def test_a_job_can_be_stopped_at_any_moment_of_its_start(
    lab: Lab, seconds_later: float
) -> None:
    dataset = await lab.dataset("A")
    workflow = await lab.workflow(("Process", {"args_parallel": {"seconds": 50}}))
    job = await lab.submit(workflow, dataset)
    await asyncio.sleep(seconds_later)
    await lab.ok("GET", f"{lab.base}/job/{job['id']}/stop/")
    ended = await lab.ended(job)
    assert ended["status"] == "failed"
    assert "stopped" in ended["log"]
    assert "crashed" not in ended["log"]
