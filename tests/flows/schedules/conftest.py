"""Schedules of the lab, made over REST and gone after the test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort

from tests.lab import Lab, eventually

# Not in the time of a test.
YEARLY = {"cron": "0 3 1 1 *", "timezone": "Europe/Zurich"}
OFTEN = {"interval_seconds": 2}


class Schedules:
    """What the tests do with schedules again and again."""

    def __init__(self, lab: Lab, prefect: PrefectClient) -> None:
        self.lab = lab
        self.prefect = prefect
        self.made: list[dict[str, Any]] = []

    async def post(
        self, workflow: dict[str, Any], dataset: dict[str, Any], **body: Any
    ) -> dict[str, Any]:
        """A schedule of a workflow on a dataset."""
        ids = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
        made = await self.lab.ok("POST", f"{self.lab.base}/schedule/", json=ids | body)
        self.made.append(made)
        return made

    def url(self, schedule: dict[str, Any]) -> str:
        return f"/api/v2/project/{schedule['project_id']}/schedule/{schedule['id']}/"

    async def get(self, schedule: dict[str, Any]) -> dict[str, Any]:
        """The schedule as it is now."""
        return await self.lab.ok("GET", self.url(schedule))

    async def patch(self, schedule: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return await self.lab.ok("PATCH", self.url(schedule), json=changes)

    async def outcomes(
        self, schedule: dict[str, Any], good: Callable[[list[dict[str, Any]]], object]
    ) -> list[dict[str, Any]]:
        """What became of its latest occurrences, as soon as that is good."""

        async def read() -> list[dict[str, Any]]:
            return (await self.get(schedule))["occurrences"]

        return await eventually(read, good)

    async def paused_with(self, schedule: dict[str, Any], notice: str) -> dict[str, Any]:
        """The schedule when it has been paused with this notice, here and in Prefect."""
        now = await eventually(lambda: self.get(schedule), lambda now: now["notice"])
        assert notice in now["notice"]
        deployment = await eventually(
            lambda: self.deployment(schedule), lambda found: notice in (found.description or "")
        )
        assert deployment.paused
        assert not (await self.get(schedule))["active"]
        return now

    async def deployment(self, schedule: dict[str, Any]) -> DeploymentResponse:
        return await self.prefect.read_deployment(UUID(schedule["deployment_id"]))

    async def flow_runs(self, schedule: dict[str, Any]) -> list[FlowRun]:
        """All its flow runs, the first to come first."""
        return await self.prefect.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[UUID(schedule["deployment_id"])])
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=200,
        )


@pytest.fixture
async def schedules(lab: Lab, prefect: PrefectClient) -> AsyncIterator[Schedules]:
    made = Schedules(lab, prefect)
    yield made
    for schedule in made.made:
        await lab.client.delete(made.url(schedule))


Pause = Callable[[bool], Awaitable[None]]


@pytest.fixture
async def pause_pool(lab: Lab, prefect: PrefectClient) -> AsyncIterator[Pause]:
    """Pauses the work pool, or has it go on."""

    async def pause(paused: bool) -> None:
        await prefect.update_work_pool("local", WorkPoolUpdate(is_paused=paused))

    yield pause
    await pause(False)
