"""Jobs, while the Prefect API is away."""

import io
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.units import job_files
from fractal_models.tables import JobV2, Resource

Submit = Callable[..., Awaitable[Any]]


@pytest.fixture
async def job(
    owner: Any, runnable: dict[str, Any], dataset: dict[str, Any], submit: Submit
) -> dict[str, Any]:
    """A submitted job, which waits for Prefect."""
    return await owner.ok("GET", url((await submit(runnable, dataset)).json()))


@pytest.fixture
def folder(job: dict[str, Any]) -> Path:
    """The folder of the job, with a log."""
    folder = Path(job["working_dir"])
    folder.mkdir(parents=True)
    (folder / "workflow.log").write_text("so far, so good")
    return folder


def url(job: dict[str, Any]) -> str:
    return f"/api/v2/project/{job['project_id']}/job/{job['id']}/"


async def test_a_job_is_submitted_also_without_prefect(
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Submit,
    resource: Resource,
) -> None:
    answer = await submit(runnable, dataset, type_filters={"is_3D": True})
    job = answer.json()

    assert answer.status_code == 202
    assert (job["status"], job["flow_run_id"]) == ("submitted", None)
    assert (job["first_task_index"], job["last_task_index"]) == (0, 0)
    assert job["type_filters"] == {"is_3D": True}
    assert job["user_email"] == owner.user.email
    assert job["dataset_dump"]["zarr_dir"] == dataset["zarr_dir"]
    assert job["working_dir"].startswith(f"{resource.jobs_local_dir}/")
    told = await owner.ok("GET", url(job))
    assert "Waiting: Prefect, the workflow engine, does not answer." in told["log"]
    assert {**told, "log": None} == job


async def test_a_dataset_has_one_submitted_job_at_a_time(
    owner: Any, job: dict[str, Any], runnable: dict[str, Any], dataset: dict[str, Any], submit: Any
) -> None:
    second = await submit(runnable, dataset)
    await owner.ok("GET", f"{url(job)}stop/")
    third = await submit(runnable, dataset)

    assert second.status_code == 422
    assert "wait for it, or stop it" in second.json()["detail"]
    assert third.status_code == 202


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"first_task_index": 1}, "0 to 0"),
        ({"first_task_index": 1, "last_task_index": 0}, "after"),
        ({"slurm_account": "lab"}, "'lab'"),
        ({"worker_init": ""}, "at least 1"),
        ({"worker_init": "a\0b"}, "NUL"),
        ({"attribute_filters": {"well": ["a\0b"]}}, "NUL"),
        ({"attribute_filters": {"well": []}}, "empty"),
        ({"use_cache": True}, "Extra inputs"),
    ],
)
async def test_a_wrong_submission_is_refused(
    request_: dict[str, Any],
    told: str,
    owner: Any,
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Submit,
) -> None:
    answer = await submit(runnable, dataset, **request_)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])
    assert await owner.ok("GET", f"/api/v2/project/{dataset['project_id']}/job/") == []


async def test_a_workflow_without_tasks_is_not_run(
    workflow: dict[str, Any], dataset: dict[str, Any], submit: Submit
) -> None:
    answer = await submit(workflow, dataset)

    assert answer.status_code == 422
    assert "no tasks" in answer.json()["detail"]


async def test_jobs_are_listed_for_the_project_the_workflow_and_the_user(
    owner: Any,
    job: dict[str, Any],
    runnable: dict[str, Any],
    new_person: Callable[..., Awaitable[Any]],
) -> None:
    base = f"/api/v2/project/{job['project_id']}"
    other = await new_person()

    assert await owner.ok("GET", f"{base}/job/") == [job]
    assert await owner.ok("GET", f"{base}/workflow/{runnable['id']}/job/") == [job]
    assert (await owner.ok("GET", "/api/v2/job/"))[0] == job
    assert await other.ok("GET", "/api/v2/job/") == []


@pytest.mark.parametrize("microsecond", [509700, 0])
async def test_lists_spell_times_as_a_job_alone_does(
    owner: Any, job: dict[str, Any], session: AsyncSession, microsecond: int
) -> None:
    row = await session.get_one(JobV2, job["id"])
    row.start_timestamp = row.start_timestamp.replace(microsecond=microsecond)
    await session.commit()
    base = f"/api/v2/project/{job['project_id']}/job/"

    assert await owner.ok("GET", base) == [await owner.ok("GET", f"{base}{job['id']}/")]


async def test_jobs_are_listed_for_all_who_have_joined_their_project(
    owner: Any,
    project: dict[str, Any],
    job: dict[str, Any],
    new_person: Callable[..., Awaitable[Any]],
    invite: Callable[..., Awaitable[None]],
) -> None:
    guest, invited = await new_person(), await new_person()
    await invite(guest, project, "r")
    await invite(invited, project, "r", is_verified=False)

    assert await guest.ok("GET", "/api/v2/job/") == [job]
    assert await invited.ok("GET", "/api/v2/job/") == []


async def test_logs_are_left_out_of_a_list_on_request(owner: Any, job: dict[str, Any]) -> None:
    await owner.ok("GET", f"{url(job)}stop/")
    base = f"/api/v2/project/{job['project_id']}/job/"

    [with_log] = await owner.ok("GET", base)
    [without] = await owner.ok("GET", f"{base}?log=false")

    assert "stopped" in with_log["log"]
    assert without == {**with_log, "log": None}


async def test_a_job_that_waits_for_prefect_ends_when_it_is_stopped(
    owner: Any, job: dict[str, Any]
) -> None:
    stopped = await owner.get(f"{url(job)}stop/")
    ended = await owner.ok("GET", url(job))
    again = await owner.get(f"{url(job)}stop/")

    assert stopped.status_code == 202
    assert ended["status"] == "failed"
    assert ended["log"].startswith(f"JOB ERROR in Fractal job {job['id']}: ")
    assert "stopped" in ended["log"]
    assert ended["end_timestamp"] is not None
    assert again.status_code == 422


async def test_a_stop_is_kept_for_who_executes_the_job_if_prefect_is_away(
    owner: Any, job: dict[str, Any], session: Any
) -> None:
    row = await session.get_one(JobV2, job["id"])
    row.flow_run_id = "6fd1a1a5-8b24-4a5c-9d9c-0b2f0a8f7e11"
    await session.commit()

    answer = await owner.get(f"{url(job)}stop/")

    assert answer.status_code == 202
    await session.refresh(row)
    assert (row.status, row.stop_reason) == ("submitted", "Stopped through the Fractal API.")


async def test_the_log_of_a_running_job_is_shown_on_request(
    owner: Any, job: dict[str, Any], folder: Path
) -> None:
    assert "Waiting" in job["log"]
    assert (await owner.ok("GET", url(job)))["log"] == job["log"]
    shown = await owner.ok("GET", f"{url(job)}?show_tmp_logs=true")
    assert shown["log"] == f"so far, so good{job['log']}"


async def test_the_folder_of_a_job_is_downloaded(
    owner: Any, job: dict[str, Any], folder: Path
) -> None:
    running = await owner.get(f"{url(job)}download/")
    folder.with_name(f"{folder.name}.zip").write_bytes(b"made at the end")
    ended = await owner.get(f"{url(job)}download/")

    assert running.headers["content-type"] == "application/x-zip-compressed"
    with zipfile.ZipFile(io.BytesIO(running.content)) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("workflow.log")]
        assert archive.read(name) == b"so far, so good"
    assert ended.content == b"made at the end"


async def test_a_job_without_a_folder_has_nothing_to_download(
    owner: Any, job: dict[str, Any]
) -> None:
    assert (await owner.get(f"{url(job)}download/")).status_code == 404


async def test_a_long_log_is_cut_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"begin" + b"x" * (2 * job_files.MAX_BYTES) + b"end")

    text = await job_files.read_log(path, folder=tmp_path)

    assert text.startswith("begin")
    assert text.endswith("end")
    assert f"{job_files.MAX_BYTES + 8} bytes left out" in text


async def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert f"{gone} is not there" in await job_files.read_log(gone, folder=tmp_path)


@pytest.mark.parametrize("path", ["/", "/nothing"])
async def test_a_log_of_no_job_that_is_not_there_is_named(path: str) -> None:
    assert f"The log file {path} " in await job_files.read_log(Path(path), folder=None)


async def test_a_task_that_is_not_shared_cannot_be_run_by_a_guest(
    owner: Any,
    new_person: Callable[..., Awaitable[Any]],
    invite: Callable[..., Awaitable[None]],
    dataset: dict[str, Any],
    workflow: dict[str, Any],
    project: dict[str, Any],
    new_task: Callable[..., Awaitable[dict[str, Any]]],
) -> None:
    task = await new_task(query={"private": True})
    base = f"/api/v2/project/{project['id']}"
    await owner.ok(
        "POST", f"{base}/workflow/{workflow['id']}/wftask/", json=[{"task_id": task["id"]}]
    )
    guest = await new_person()
    await invite(guest, project, "rwx")
    query = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
    answer = await guest.post(f"{base}/job/submit/", params=query, json={})
    assert answer.status_code == 422
    assert task["name"] in answer.json()["detail"]
