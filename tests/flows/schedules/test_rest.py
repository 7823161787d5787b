"""Schedules over REST: made, seen, changed and deleted, as Prefect has them."""

from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from deployments.stack import Stack
from tests.flows.schedules.conftest import YEARLY, Schedules
from tests.lab import Lab


@pytest.fixture
async def workflow(lab: Lab) -> dict[str, Any]:
    return await lab.workflow("Process", "Combine")


@pytest.fixture
async def dataset(lab: Lab) -> dict[str, Any]:
    return await lab.dataset("A")


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (YEARLY, YEARLY),
        ({"cron": "0 3 1-14 * 5", "day_or": False}, {"cron": "0 3 1-14 * 5", "day_or": False}),
        (
            {"interval_seconds": 86400, "anchor": "2026-01-01T03:00:00Z"},
            {"interval_seconds": 86400.0, "anchor": "2026-01-01T03:00:00+00:00"},
        ),
        (
            {"rrule": "DTSTART:20260101T030000\nRRULE:FREQ=YEARLY", "timezone": "Asia/Tokyo"},
            {"rrule": "DTSTART:20260101T030000\nRRULE:FREQ=YEARLY", "timezone": "Asia/Tokyo"},
        ),
    ],
)
async def test_a_schedule_of_each_kind_is_a_deployment_with_these_times(
    schedules: Schedules,
    lab: Lab,
    stack: Stack,
    workflow: dict[str, Any],
    dataset: dict[str, Any],
    when: dict[str, Any],
    told: dict[str, Any],
) -> None:
    body = {"first_task_index": 1, "images": "not done", "attribute_filters": {"well": ["A"]}}
    made = await schedules.post(workflow, dataset, when=when, **body)
    assert made["name"].startswith(f"lab · {workflow['name']} · ")
    (times,) = made["when"]
    assert {**times, **told} == times
    assert made["active"]
    assert made["notice"] is None
    assert made["user_email"] == stack.initialised.admin_email
    assert {**made, **body} == made
    assert (made["workflow_id"], made["dataset_id"]) == (workflow["id"], dataset["id"])
    assert len(made["next"]) >= 1
    assert made["occurrences"] == []
    deployment = await schedules.deployment(made)
    assert deployment.work_pool_name == "local"
    assert {"fractal-schedule", "project:lab", "resource:local"} <= set(deployment.tags)
    assert deployment.parameters["dataset"] == str(dataset["id"])
    assert "images that are not done" in (deployment.description or "")
    (listed,) = [
        each for each in await lab.ok("GET", f"{lab.base}/schedule/") if each["id"] == made["id"]
    ]
    assert {**made, **listed} == made


async def test_a_schedule_can_have_several_times(
    schedules: Schedules, workflow: dict[str, Any], dataset: dict[str, Any]
) -> None:
    when = [YEARLY, {"cron": "0 4 1 1 *", "active": False}]
    made = await schedules.post(workflow, dataset, when=when, name="New Year")
    times = {each["cron"]: each["active"] for each in made["when"]}
    assert times == {"0 3 1 1 *": True, "0 4 1 1 *": False}
    assert made["name"].startswith("New Year · ")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"when": {"cron": "every night"}}, "when.0.cron: Invalid cron string"),
        ({"when": {"rrule": "FREQ=NEVER"}}, "when.0.rrule: Invalid RRule string"),
        ({"when": [YEARLY, {"cron": "0 3 * * *", "timezone": "Mars"}]}, "when.1.timezone"),
        ({"when": {"interval_seconds": 3600, "timezone": "Mars"}}, "Mars"),
        ({"when": {"interval_seconds": 0.1}}, "greater than or equal to 1"),
        ({"when": {"cron": "0 3 * * *", "interval_seconds": 5}}, "give one of cron"),
        ({"when": {"cron": "0 3 * * *", "anchor": "2026-01-01T00:00:00Z"}}, "anchor is for"),
        ({"when": []}, "at least 1 item"),
        ({}, "give either when or after"),
        ({"when": YEARLY, "after": {"workflow_id": 1, "dataset_id": 1}}, "give either when or"),
        ({"when": YEARLY, "first_task_index": 7}, "are not in workflow"),
        ({"when": YEARLY, "slurm_account": "unknown"}, "is not among those of"),
        ({"when": YEARLY, "attribute_filters": {"well": []}}, "is empty"),
        ({"when": YEARLY, "images": "some"}, "'all' or 'not done'"),
    ],
)
async def test_what_is_wrong_is_named_and_makes_no_schedule(
    lab: Lab,
    workflow: dict[str, Any],
    dataset: dict[str, Any],
    body: dict[str, Any],
    told: str,
) -> None:
    before = await lab.ok("GET", f"{lab.base}/schedule/")
    ids = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
    answer = await lab.client.post(f"{lab.base}/schedule/", json=ids | body)
    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])
    assert await lab.ok("GET", f"{lab.base}/schedule/") == before


async def test_a_workflow_or_dataset_of_another_project_is_not_found(
    lab: Lab, workflow: dict[str, Any]
) -> None:
    body = {"workflow_id": workflow["id"], "dataset_id": 999999, "when": YEARLY}
    answer = await lab.client.post(f"{lab.base}/schedule/", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (404, "Dataset 999999 not found.")


async def test_what_is_changed_over_rest_is_changed_in_prefect(
    schedules: Schedules, workflow: dict[str, Any], dataset: dict[str, Any]
) -> None:
    made = await schedules.post(workflow, dataset, when=YEARLY)
    (times,) = (await schedules.deployment(made)).schedules
    await schedules.patch(made, first_task_index=1, attribute_filters={"well": ["A"]})
    deployment = await schedules.deployment(made)
    assert deployment.parameters["first_task"] == 1
    assert deployment.parameters["attribute_filters"] == {"well": ["A"]}
    assert [each.id for each in deployment.schedules] == [times.id]
    changed = await schedules.patch(made, when={"cron": "0 5 1 1 *"}, active=False)
    assert not changed["active"]
    assert changed["first_task_index"] == 1
    assert changed["next"] == []
    deployment = await schedules.deployment(made)
    assert deployment.paused
    assert [each.schedule.cron for each in deployment.schedules] == ["0 5 1 1 *"]
    resumed = await schedules.patch(made, active=True)
    assert resumed["active"]
    assert len(resumed["next"]) >= 1


async def test_what_is_changed_in_prefect_is_seen_over_rest(
    schedules: Schedules,
    prefect: PrefectClient,
    lab: Lab,
    workflow: dict[str, Any],
    dataset: dict[str, Any],
) -> None:
    made = await schedules.post(workflow, dataset, when=YEARLY)
    deployment = await schedules.deployment(made)
    await prefect.pause_deployment(deployment.id)
    assert not (await schedules.get(made))["active"]
    await prefect.resume_deployment(deployment.id)
    assert (await schedules.get(made))["active"]
    (times,) = deployment.schedules
    await prefect.update_deployment_schedule(deployment.id, times.id, active=False)
    now = await schedules.get(made)
    assert (now["active"], now["when"][0]["active"]) == (False, False)
    named = DeploymentScheduleUpdate(
        schedule=CronSchedule(cron="0 6 1 1 *"), active=True, slug="named-in-prefect"
    )
    other = await lab.dataset("B")
    parameters = {**deployment.parameters, "dataset": str(other["id"]), "images": "not done"}
    await prefect.update_deployment(
        deployment.id, DeploymentUpdate(schedules=[named], parameters=parameters)
    )
    now = await schedules.get(made)
    assert [each["cron"] for each in now["when"]] == ["0 6 1 1 *"]
    assert (now["dataset_id"], now["images"]) == (other["id"], "not done")
    now = await schedules.patch(made, when={"cron": "0 7 1 1 *"})
    assert [each["cron"] for each in now["when"]] == ["0 7 1 1 *"]
    assert now["dataset_id"] == other["id"]


async def test_a_deleted_schedule_is_gone_from_both_sides(
    schedules: Schedules,
    prefect: PrefectClient,
    lab: Lab,
    workflow: dict[str, Any],
    dataset: dict[str, Any],
) -> None:
    made = await schedules.post(workflow, dataset, when=YEARLY)
    await lab.ok("DELETE", schedules.url(made))
    assert (await lab.client.get(schedules.url(made))).status_code == 404
    with pytest.raises(ObjectNotFound):
        await prefect.read_deployment(UUID(made["deployment_id"]))


async def test_a_schedule_that_was_deleted_in_prefect_is_gone_from_rest(
    schedules: Schedules,
    prefect: PrefectClient,
    lab: Lab,
    workflow: dict[str, Any],
    dataset: dict[str, Any],
) -> None:
    made = await schedules.post(workflow, dataset, when=YEARLY)
    await prefect.delete_deployment(UUID(made["deployment_id"]))
    answer = await lab.client.get(schedules.url(made))
    assert (answer.status_code, "deleted in Prefect" in answer.text) == (404, True)
    listed = await lab.ok("GET", f"{lab.base}/schedule/")
    assert made["id"] not in [each["id"] for each in listed]
    await lab.ok("DELETE", schedules.url(made))
