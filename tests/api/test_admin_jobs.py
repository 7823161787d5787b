"""Administration of jobs."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.process.lock import holding_job
from fractal_models.settings import Settings
from fractal_models.tables import HistoryRun, HistoryUnit, JobV2, Resource
from tests.lab import Lab, eventually

Submit = Callable[..., Awaitable[Any]]


@pytest.fixture
async def job(
    owner: Any, runnable: dict[str, Any], dataset: dict[str, Any], submit: Submit
) -> dict[str, Any]:
    """A submitted job of the owner, which nobody executes."""
    submitted = (await submit(runnable, dataset)).json()
    return await owner.ok("GET", f"/api/v2/project/{runnable['project_id']}/job/{submitted['id']}/")


def url(job: dict[str, Any]) -> str:
    return f"/admin/v2/job/{job['id']}/"


async def test_jobs_of_all_users_are_found_by_what_is_known_of_them(
    admin: Any, owner: Any, job: dict[str, Any], resource: Resource
) -> None:
    moment = job["start_timestamp"]
    matching: dict[str, Any] = {
        "id": job["id"],
        "resource_id": resource.id,
        "project_owner_id": owner.user.id,
        "job_user_email": owner.user.email,
        "project_id": job["project_id"],
        "dataset_id": job["dataset_id"],
        "workflow_id": job["workflow_id"],
        "status": "submitted",
        "start_timestamp_min": moment,
        "start_timestamp_max": moment,
    }
    other: dict[str, Any] = {
        "resource_id": 10**6,
        "project_owner_id": admin.user.id,
        "job_user_email": admin.user.email,
        "project_id": 10**6,
        "dataset_id": 10**6,
        "workflow_id": 10**6,
        "status": "done",
        "start_timestamp_min": "2999-01-01T00:00:00Z",
        "start_timestamp_max": "1999-01-01T00:00:00Z",
        "end_timestamp_min": moment,
        "end_timestamp_max": moment,
    }

    page = await admin.ok("GET", "/admin/v2/job/", params=matching)
    assert (page["items"], page["total_count"]) == ([job], 1)
    for name, value in other.items():
        page = await admin.ok("GET", "/admin/v2/job/", params={"id": job["id"], name: value})
        assert page["items"] == [], name


async def test_a_job_is_read_stopped_and_downloaded_as_by_its_user(
    admin: Any, job: dict[str, Any]
) -> None:
    folder = Path(job["working_dir"])
    folder.mkdir(parents=True)
    (folder / "workflow.log").write_text("so far")

    assert await admin.ok("GET", url(job)) == job
    assert (await admin.ok("GET", f"{url(job)}?show_tmp_logs=true"))["log"].startswith("so far")
    assert (await admin.get(f"{url(job)}download/")).content.startswith(b"PK")
    assert (await admin.get(f"{url(job)}stop/")).status_code == 202
    assert (await admin.ok("GET", url(job)))["status"] == "failed"
    [listed] = (await admin.ok("GET", f"/admin/v2/job/?id={job['id']}&log=false"))["items"]
    assert listed["log"] is None
    assert (await admin.get(url({"id": 10**6}))).status_code == 404


async def test_a_job_that_nobody_executes_is_ended_with_all_that_it_began(
    admin: Any, owner: Any, job: dict[str, Any], session: AsyncSession
) -> None:
    run = HistoryRun(
        dataset_id=job["dataset_id"],
        job_id=job["id"],
        workflowtask_dump={"id": 1, "order": 0, "task_id": 1, "task": {"name": "task"}},
        task_group_dump={},
        status="submitted",
        num_available_images=0,
    )
    session.add(run)
    await session.flush()
    unit = HistoryUnit(history_run_id=run.id, status="done")
    session.add(unit)
    await session.commit()

    ended = await admin.ok("PATCH", url(job), json={"status": "failed"})

    assert ended["status"] == "failed"
    assert ended["end_timestamp"] is not None
    assert ended["log"].startswith(f"JOB ERROR in Fractal job {job['id']}: ")
    assert f"by administrator {admin.user.email}" in ended["log"]
    for each in (run, unit):
        await session.refresh(each)
        assert each.status == "failed"  # nobody will take over what the unit made
    assert (await admin.patch(url(job), json={"status": "failed"})).status_code == 422
    project = f"/api/v2/project/{job['project_id']}/"
    assert (await owner.delete(project)).status_code == 204  # nothing waits for the job any more


async def test_a_job_is_not_ended_while_somebody_executes_it(
    admin: Any, job: dict[str, Any], settings: Settings
) -> None:
    async with holding_job(settings.async_database_url, job["id"]):
        refused = await admin.patch(url(job), json={"status": "failed"})

    assert refused.status_code == 422
    assert "stop it" in refused.json()["detail"]
    assert await admin.ok("GET", url(job)) == job


async def test_a_job_is_not_ended_if_its_flow_run_cannot_be_cancelled(
    admin: Any, job: dict[str, Any], session: AsyncSession
) -> None:
    row = await session.get_one(JobV2, job["id"])
    row.flow_run_id = UUID("0f0a8f7e-8b24-4a5c-9d9c-6fd1a1a51111")
    await session.commit()

    refused = await admin.patch(url(job), json={"status": "failed"})

    assert refused.status_code == 503
    assert (await admin.ok("GET", url(job)))["status"] == "submitted"


@pytest.mark.parametrize("status", ["done", "submitted", None])
async def test_a_job_is_given_no_other_end(admin: Any, job: dict[str, Any], status: Any) -> None:
    assert (await admin.patch(url(job), json={"status": status})).status_code == 422
    assert await admin.ok("GET", url(job)) == job


async def test_the_flow_run_of_a_job_that_is_ended_never_runs(
    lab: Lab, prefect: PrefectClient
) -> None:
    await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=True))
    try:
        job = await lab.submit(await lab.workflow("Process"), await lab.dataset("A"))
        ended = await lab.ok("PATCH", url(job), json={"status": "failed"})
    finally:
        await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=False))

    state = (await prefect.read_flow_run(UUID(job["flow_run_id"]))).state
    assert ended["status"] == "failed"
    assert state is not None
    assert state.is_cancelled()


async def test_a_job_that_runs_is_stopped_before_it_is_ended(lab: Lab) -> None:
    workflow = await lab.workflow(("Process", {"args_parallel": {"seconds": 60}}))
    job = await lab.submit(workflow, await lab.dataset("A"))

    async def log() -> Any:
        return (await lab.job(job, show_tmp_logs=True))["log"]

    await eventually(log, lambda text: text and "begins" in text)
    refused = await lab.client.patch(url(job), json={"status": "failed"})
    await lab.ok("GET", f"{url(job)}stop/")
    ended = await lab.ended(job)

    assert refused.status_code == 422
    assert ended["status"] == "failed"
