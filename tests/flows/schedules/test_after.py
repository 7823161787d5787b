"""Schedules that wait for another job to be done, in place of a time."""

from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient

from tests.flows.schedules.conftest import YEARLY, Schedules
from tests.flows.schedules.test_occurrences import count
from tests.flows.watchers.test_events import Sessions, told
from tests.lab import Lab, eventually


class Pair:
    """A workflow and a dataset, of which a job can be done."""

    def __init__(self, workflow: dict[str, Any], dataset: dict[str, Any]) -> None:
        self.workflow = workflow
        self.dataset = dataset

    @property
    def ids(self) -> dict[str, int]:
        return {"workflow_id": self.workflow["id"], "dataset_id": self.dataset["id"]}


@pytest.fixture
async def first(lab: Lab) -> Pair:
    return Pair(await lab.workflow("Process"), await lab.dataset("A"))


@pytest.fixture
async def then(lab: Lab) -> Pair:
    return Pair(await lab.workflow("Process"), await lab.dataset("B"))


async def do(lab: Lab, workflow: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
    """A job that is done."""
    job = await lab.run(workflow, dataset)
    assert job["status"] == "done", job["log"]
    return job


async def test_a_schedule_runs_when_the_job_that_it_waits_for_is_done(
    lab: Lab, schedules: Schedules, first: Pair, then: Pair
) -> None:
    made = await schedules.post(then.workflow, then.dataset, after=first.ids)
    assert made["after"] == first.ids
    assert (made["active"], made["when"], made["next"]) == (True, [], [])
    (listed,) = [
        each for each in await lab.ok("GET", f"{lab.base}/schedule/") if each["id"] == made["id"]
    ]
    assert (listed["after"], listed["active"]) == (first.ids, True)
    other = await lab.dataset("C")
    await do(lab, first.workflow, other)
    await do(lab, then.workflow, first.dataset)
    await do(lab, first.workflow, first.dataset)
    latest = await schedules.outcomes(made, lambda now: count(now, "run"))
    assert [each["outcome"] for each in latest] == ["run"]
    job = await lab.job({"id": latest[0]["job_id"]})
    assert (job["workflow_id"], job["dataset_id"]) == (then.workflow["id"], then.dataset["id"])
    assert len(await schedules.flow_runs(made)) == 1


async def test_a_paused_one_does_not_run_and_a_pause_in_prefect_is_seen(
    lab: Lab,
    schedules: Schedules,
    prefect: PrefectClient,
    fractal: Sessions,
    first: Pair,
    then: Pair,
) -> None:
    made = await schedules.post(then.workflow, then.dataset, after=first.ids, active=False)
    assert not made["active"]
    await told(prefect, fractal, await do(lab, first.workflow, first.dataset))
    assert (await schedules.patch(made, active=True))["active"]
    (automation,) = await prefect.read_resource_related_automations(
        f"prefect.deployment.{made['deployment_id']}"
    )
    assert automation.name == made["name"]
    await prefect.pause_automation(automation.id)
    assert not (await schedules.get(made))["active"]
    await prefect.resume_automation(automation.id)
    assert (await schedules.get(made))["active"]
    await do(lab, first.workflow, first.dataset)
    await schedules.outcomes(made, lambda now: count(now, "run"))
    assert len(await schedules.flow_runs(made)) == 1


async def test_one_whose_automation_was_deleted_in_prefect_needs_another(
    lab: Lab, schedules: Schedules, prefect: PrefectClient, first: Pair, then: Pair
) -> None:
    made = await schedules.post(then.workflow, then.dataset, after=first.ids)
    resource = f"prefect.deployment.{made['deployment_id']}"
    await prefect.delete_resource_owned_automations(resource)
    now = await schedules.get(made)
    assert (now["active"], now["after"]) == (False, None)
    answer = await lab.client.patch(schedules.url(made), json={"active": True})
    assert (answer.status_code, "give when or after" in answer.text) == (422, True)
    now = await schedules.patch(made, after=first.ids)
    assert now["after"] == first.ids


async def test_times_can_take_the_place_of_a_job_and_back(
    schedules: Schedules, prefect: PrefectClient, first: Pair, then: Pair
) -> None:
    made = await schedules.post(then.workflow, then.dataset, when=YEARLY)
    resource = f"prefect.deployment.{made['deployment_id']}"
    now = await schedules.patch(made, after=first.ids)
    assert (now["after"], now["when"], now["next"], now["active"]) == (first.ids, [], [], True)
    assert len(await prefect.read_resource_related_automations(resource)) == 1
    now = await schedules.patch(made, when=YEARLY)
    assert (now["after"], len(now["when"]), now["active"]) == (None, 1, True)
    assert await prefect.read_resource_related_automations(resource) == []


async def test_what_would_never_end_is_refused(
    lab: Lab, schedules: Schedules, first: Pair, then: Pair
) -> None:
    url = f"{lab.base}/schedule/"
    answer = await lab.client.post(url, json={**first.ids, "after": first.ids})
    assert (answer.status_code, "for ever" in answer.json()["detail"]) == (422, True)
    made = await schedules.post(then.workflow, then.dataset, after=first.ids)
    answer = await lab.client.post(url, json={**first.ids, "after": then.ids})
    assert (answer.status_code, "for ever" in answer.json()["detail"]) == (422, True)
    await schedules.patch(made, after=first.ids)
    third = Pair(await lab.workflow("Process"), then.dataset)
    await schedules.post(third.workflow, third.dataset, after=then.ids)
    answer = await lab.client.patch(schedules.url(made), json={"after": third.ids})
    assert (answer.status_code, "for ever" in answer.json()["detail"]) == (422, True)


async def test_it_pauses_when_what_it_waits_for_is_deleted_and_its_automation_goes_with_it(
    lab: Lab, schedules: Schedules, prefect: PrefectClient, first: Pair, then: Pair
) -> None:
    made = await schedules.post(then.workflow, then.dataset, after=first.ids)
    await lab.ok("DELETE", f"{lab.base}/dataset/{first.dataset['id']}/")
    notice = "The workflow or dataset that it waits for was deleted."
    now = await schedules.paused_with(made, notice)
    assert now["after"] == {**first.ids, "dataset_id": None}
    await lab.ok("DELETE", schedules.url(made))
    resource = f"prefect.deployment.{made['deployment_id']}"

    async def automations() -> list[Any]:
        return await prefect.read_resource_related_automations(resource)

    await eventually(automations, lambda found: not found)
