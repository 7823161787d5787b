"""What becomes of the occurrences of schedules: jobs, or a reason that both sides show."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate

from deployments.stack import Stack
from tests.flows.schedules.conftest import OFTEN, YEARLY, Pause, Schedules
from tests.lab import Lab, eventually


def count(occurrences: list[dict[str, Any]], outcome: str) -> int:
    return sum(each["outcome"] == outcome for each in occurrences)


def skipped_as(occurrences: list[dict[str, Any]], reason: str) -> bool:
    """Whether one was skipped for this reason. (On a slow machine others are for other reasons.)"""
    return any(
        each["outcome"] == "skipped" and reason in (each["reason"] or "") for each in occurrences
    )


async def state_of(prefect: PrefectClient, occurrence: dict[str, Any]) -> tuple[str | None, Any]:
    flow_run = await prefect.read_flow_run(UUID(occurrence["flow_run_id"]))
    return flow_run.state_name, flow_run.state and flow_run.state.message


async def in_prefect(stack: Stack, statement: str, *values: str) -> None:
    """Change something in Prefect's database, behind its back."""
    url = stack.postgres.prefect.set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    await connection.execute(statement, *values)
    await connection.close()


async def test_a_schedule_runs_a_job_at_each_of_its_times(
    lab: Lab, schedules: Schedules, stack: Stack
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    made = await schedules.post(workflow, dataset, when={"interval_seconds": 4})
    latest = await schedules.outcomes(made, lambda now: count(now, "run") >= 2)
    run = next(each for each in latest if each["outcome"] == "run")
    job = await lab.job({"id": run["job_id"]})
    assert (job["status"], job["flow_run_id"]) == ("done", run["flow_run_id"])
    assert job["user_email"] == stack.initialised.admin_email
    assert (job["workflow_id"], job["dataset_id"]) == (workflow["id"], dataset["id"])


async def test_an_occurrence_that_finds_the_dataset_busy_is_skipped_and_says_so(
    lab: Lab, schedules: Schedules, prefect: PrefectClient
) -> None:
    dataset = await lab.dataset("A")
    slow = await lab.workflow(("Process", {"args_parallel": {"seconds": 60}}))
    job = await lab.submit(slow, dataset)
    made = await schedules.post(await lab.workflow("Process"), dataset, when=OFTEN)
    busy = "has a job that has not ended"
    latest = await schedules.outcomes(made, lambda now: skipped_as(now, busy))
    skipped = next(each for each in latest if skipped_as([each], busy))
    assert skipped["job_id"] is None
    assert await state_of(prefect, skipped) == ("Skipped", skipped["reason"])
    assert (await schedules.get(made))["active"]
    await lab.ok("GET", f"{lab.base}/job/{job['id']}/stop/")
    await schedules.outcomes(made, lambda now: count(now, "run"))


async def jobs_on(lab: Lab, dataset: dict[str, Any]) -> int:
    """How many jobs there have been on a dataset."""
    jobs = await lab.ok("GET", f"{lab.base}/job/")
    return sum(job["dataset_id"] == dataset["id"] for job in jobs)


async def test_a_dataset_that_was_given_in_prefect_takes_the_place_of_the_first(
    lab: Lab, schedules: Schedules, prefect: PrefectClient
) -> None:
    first, other = await lab.dataset("A"), await lab.dataset("B")
    made = await schedules.post(await lab.workflow("Process"), first, when=OFTEN)
    deployment = await schedules.deployment(made)
    parameters = {**deployment.parameters, "dataset": str(other["id"])}
    await prefect.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))

    had = await eventually(lambda: jobs_on(lab, other), bool)
    await lab.ok("DELETE", f"{lab.base}/dataset/{first['id']}/")
    await eventually(lambda: jobs_on(lab, other), lambda now: now > had)
    assert (await schedules.get(made))["notice"] is None


async def test_when_all_images_are_done_there_is_nothing_to_do_until_there_is_a_new_one(
    lab: Lab, schedules: Schedules
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    made = await schedules.post(workflow, dataset, when=OFTEN, images="not done")
    await schedules.outcomes(made, lambda now: skipped_as(now, "nothing to do"))
    assert await jobs_on(lab, dataset) == 1
    url = f"{lab.base}/dataset/{dataset['id']}/images/"
    await lab.ok("POST", url, json={"zarr_url": f"{dataset['zarr_dir']}/B"})
    await eventually(lambda: jobs_on(lab, dataset), lambda now: now == 2)
    await schedules.outcomes(made, lambda now: skipped_as(now[:1], "nothing to do"))
    _, units = await lab.history(workflow, dataset)
    assert [unit["zarr_urls"] for unit in units] == [[f"{dataset['zarr_dir']}/B"]]


async def test_a_resource_that_is_closed_for_new_jobs_skips_and_pauses_nothing(
    lab: Lab, schedules: Schedules
) -> None:
    (resource,) = [
        each for each in await lab.ok("GET", "/admin/v2/resource/") if each["name"] == "local"
    ]
    url = f"/admin/v2/resource/{resource.pop('id')}/"
    del resource["timestamp_created"]
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    try:
        await lab.ok("PUT", url, json=resource | {"prevent_new_submissions": True})
        made = await schedules.post(workflow, dataset, when=OFTEN)
        await schedules.outcomes(made, lambda now: skipped_as(now, "takes no new jobs"))
    finally:
        await lab.ok("PUT", url, json=resource)
    assert (await schedules.get(made))["active"]


async def test_of_what_was_missed_the_latest_is_run_and_the_others_say_so(
    lab: Lab, schedules: Schedules, pause_pool: Pause
) -> None:
    await pause_pool(True)
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    made = await schedules.post(workflow, dataset, when={"interval_seconds": 1})
    await schedules.outcomes(made, lambda now: count(now, "waiting") >= 6)
    await schedules.patch(made, when=YEARLY)
    missed = (await schedules.get(made))["occurrences"]
    await pause_pool(False)
    latest = await schedules.outcomes(made, lambda now: count(now, "run"))
    assert [each["flow_run_id"] for each in latest] == [each["flow_run_id"] for each in missed]
    assert [each["outcome"] for each in latest] == ["run"] + ["skipped"] * (len(missed) - 1)
    run = latest[0]["expected"].replace("T", " ")[:19]
    assert {each["reason"] for each in latest[1:]} == {
        "Missed: no worker had room for it in time. "
        f"The occurrence of {run} UTC is run in its place."
    }


async def test_what_is_due_when_a_schedule_is_paused_is_skipped(
    lab: Lab, schedules: Schedules, pause_pool: Pause
) -> None:
    await pause_pool(True)
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    made = await schedules.post(workflow, dataset, when={"interval_seconds": 1})
    await schedules.outcomes(made, lambda now: count(now, "waiting"))
    await schedules.patch(made, active=False)
    await pause_pool(False)
    latest = await schedules.outcomes(made, lambda now: count(now, "skipped") == len(now))
    assert latest[0]["reason"] == "The schedule is paused."


async def test_what_prefect_made_ahead_follows_what_the_schedule_says_when_it_is_due(
    lab: Lab, schedules: Schedules, stack: Stack, pause_pool: Pause
) -> None:
    """Prefect makes flow runs also in the moment in which their deployment is changed."""
    await pause_pool(True)
    first, other = await lab.dataset("A"), await lab.dataset("B")
    made = await schedules.post(await lab.workflow("Process"), first, when=OFTEN)
    await schedules.outcomes(made, lambda now: count(now, "waiting"))
    await in_prefect(
        stack,
        "UPDATE deployment SET parameters = jsonb_set(parameters, '{dataset}', to_jsonb($2::text))"
        " WHERE id = $1",
        *(made["deployment_id"], str(other["id"])),
    )
    await pause_pool(False)
    latest = await schedules.outcomes(made, lambda now: count(now, "run"))
    run = next(each for each in latest if each["outcome"] == "run")
    assert (await lab.job({"id": run["job_id"]}))["dataset_id"] == other["id"]


async def test_what_prefect_made_for_a_time_that_was_taken_away_is_not_announced(
    lab: Lab, schedules: Schedules, stack: Stack
) -> None:
    made = await schedules.post(await lab.workflow("Process"), await lab.dataset("A"), when=YEARLY)
    assert (await schedules.get(made))["next"]
    await in_prefect(
        stack, "DELETE FROM deployment_schedule WHERE deployment_id = $1", made["deployment_id"]
    )
    assert (await schedules.get(made))["next"] == []


async def test_after_a_downtime_of_prefect_and_the_worker_one_run_is_made_up(
    lab: Lab, schedules: Schedules, stack: Stack
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    made = await schedules.post(workflow, dataset, when={"interval_seconds": 20})
    services = {service.name: service for service in stack.services}
    services["worker"].kill()
    assert len(made["next"]) >= 3
    times = [each["expected"] for each in (await schedules.get(made))["occurrences"]]
    services["prefect"].kill()
    answer = await lab.client.get(schedules.url(made))
    assert answer.status_code == 503
    second = datetime.fromisoformat(made["next"][1])

    async def passed() -> bool:
        return datetime.now(UTC) > second

    await eventually(passed, bool)
    stack.start("prefect")
    stack.start("worker")
    await eventually(lambda: lab.client.get(schedules.url(made)), lambda answer: answer.is_success)

    def is_settled(latest: list[dict[str, Any]]) -> bool:
        told = [each["outcome"] for each in latest if each["expected"] not in times]
        return "run" in told and set(told) <= {"run", "skipped"}

    latest = await schedules.outcomes(made, is_settled)
    assert count(latest, "run") == 1
    assert latest[0]["outcome"] == "run"
    assert all(
        each["outcome"] == "skipped" and "Missed" in each["reason"]
        for each in latest[1:]
        if each["expected"] not in times
    )


async def test_a_worker_that_ends_just_before_an_occurrence_does_not_begin_it_early(
    lab: Lab, schedules: Schedules, stack: Stack, prefect: PrefectClient
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    (worker,) = (service for service in stack.services if service.name == "worker")
    ahead = datetime.now(UTC) + timedelta(seconds=12)
    daily = {"interval_seconds": 86400, "anchor": ahead.isoformat()}
    made = await schedules.post(workflow, dataset, when=daily)
    occurrence = (await schedules.flow_runs(made))[0]

    async def is_being_submitted() -> bool:
        state = (await prefect.read_flow_run(occurrence.id)).state
        return state is not None and state.is_pending()

    await eventually(is_being_submitted, bool)
    worker.stop()
    stack.start("worker")
    latest = await schedules.outcomes(made, lambda now: count(now, "run"))
    assert [each["flow_run_id"] for each in latest] == [str(occurrence.id)]
    flow_run = await prefect.read_flow_run(occurrence.id)
    assert flow_run.start_time is not None
    assert flow_run.start_time >= ahead - timedelta(seconds=0.1)


async def test_an_email_that_changed_does_not_matter_to_a_schedule(
    lab: Lab, schedules: Schedules, prefect: PrefectClient
) -> None:
    made = await schedules.post(await lab.workflow("Process"), await lab.dataset("A"), when=YEARLY)
    (me,) = [u for u in await lab.ok("GET", "/auth/users/") if u["email"] == made["user_email"]]
    url = f"/auth/users/{me['id']}/"
    await lab.ok("PATCH", url, json={"email": "new@example.org", "is_verified": True})
    try:
        assert (await schedules.get(made))["user_email"] == "new@example.org"
        run = await prefect.create_flow_run_from_deployment(UUID(made["deployment_id"]))
        (latest,) = await schedules.outcomes(made, lambda now: count(now, "run"))
        assert latest["flow_run_id"] == str(run.id)
        assert (await lab.job({"id": latest["job_id"]}))["user_email"] == "new@example.org"
    finally:
        await lab.ok("PATCH", url, json={"email": me["email"], "is_verified": True})
