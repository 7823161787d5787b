"""Schedules in Prefect: each is a deployment with times or with an automation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleUpdate,
    DeploymentUpdate,
)
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import AutomationSort, DeploymentSort, FlowRunSort
from prefect.events.actions import RunDeployment
from prefect.events.filters import AutomationFilter, AutomationFilterId
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger
from prefect.exceptions import ObjectNotFound

from flows.engine.client import Engine, UnpublishedError
from flows.engine.publication import entrypoint_and_form
from flows.schedules.occurrences import TAG
from flows.schedules.plan import SchedulePlan, with_notice
from flows.schedules.times import from_prefect
from fractal_models.schemas.schedule import AfterRead, WhenRead
from fractal_models.tables.columns import now

_FLOW = "run-job"
_DONE = "fractal.job.done"

_NEXT, _LATEST = 5, 20
_PAGE = 200  # Prefect's limit


@dataclass(frozen=True)
class InPrefect:
    """A schedule as it is in Prefect at this moment."""

    deployment: DeploymentResponse
    automation: Automation | None

    @property
    def paused(self) -> bool:
        """Whether the whole schedule is paused."""
        return self.deployment.paused if self.automation is None else not self.automation.enabled

    @property
    def active(self) -> bool:
        """Whether something will begin a job of this schedule."""
        begins = self.automation is not None or any(each.active for each in self.when)
        return begins and not self.paused

    @property
    def when(self) -> list[WhenRead]:
        return [from_prefect(each) for each in self.deployment.schedules]

    @property
    def after(self) -> AfterRead | None:
        """The job for which the schedule waits, read from the automation's trigger."""
        if self.automation is None:
            return None
        trigger = self.automation.trigger.model_dump_json()
        found = dict(re.findall(r"fractal\.(workflow|dataset)\.(\d+)", trigger))
        return AfterRead(workflow_id=found.get("workflow"), dataset_id=found.get("dataset"))


class ScheduleDeployments:
    """Makes, reads, changes and deletes schedules in Prefect.

    Every method raises EngineUnavailableError when Prefect does not answer.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, name: str, plan: SchedulePlan) -> tuple[UUID, UUID | None]:
        """Make a schedule. Returns the ids of its deployment and its automation, if it has one.

        Raises:
            UnpublishedError: the resource has no work pool yet.
        """
        entrypoint, form = entrypoint_and_form(_FLOW)
        async with self._engine.asking() as client:
            try:
                await client.read_work_pool(plan.pool)
            except ObjectNotFound as error:
                raise UnpublishedError(f"work pool {plan.pool!r}") from error
            deployment_id = await client.create_deployment(
                flow_id=await client.create_flow_from_name(_FLOW),
                name=name,
                entrypoint=entrypoint,
                work_pool_name=plan.pool,
                parameter_openapi_schema=form,
                enforce_parameter_schema=True,
                parameters=plan.request.as_parameters(),
                description=plan.description,
                tags=[TAG, *plan.tags],
                schedules=list(plan.times or ()),
                paused=not plan.active,
            )
        async with self._engine.asking() as client:
            await _make_runs(client, deployment_id, plan.active)
            return deployment_id, await _automate(client, deployment_id, name, plan)

    async def change(self, found: InPrefect, plan: SchedulePlan) -> UUID | None:
        """Change a schedule as planned. Returns the id of its automation, if it has one.

        Times that stay keep their ids in Prefect, so that Prefect makes no second flow run for a
        time.
        """
        deployment = found.deployment
        update = DeploymentUpdate(
            parameters=plan.request.as_parameters(),
            description=plan.description,
            paused=not plan.active,
        )
        async with self._engine.asking() as client:
            if plan.begins_anew:
                for each in deployment.schedules:
                    if each.slug:  # those that were named in Prefect stay, unless deleted
                        await client.delete_deployment_schedule(deployment.id, each.id)
                update.schedules = [
                    DeploymentScheduleUpdate(schedule=each.schedule, active=each.active)
                    for each in plan.times or ()
                ]
            await client.update_deployment(deployment.id, update)
            await _make_runs(client, deployment.id, plan.active)
            if plan.begins_anew:
                await client.delete_resource_owned_automations(_resource(deployment.id))
                return await _automate(client, deployment.id, deployment.name, plan)
            await _switch(client, found.automation, plan.active)
            return found.automation.id if found.automation else None

    async def switch(self, found: InPrefect, active: bool) -> None:
        """Pause or resume a schedule."""
        async with self._engine.asking() as client:
            update = DeploymentUpdate(paused=not active)
            await client.update_deployment(found.deployment.id, update)
            await _make_runs(client, found.deployment.id, active)
            await _switch(client, found.automation, active)

    async def renew(self, deployment_ids: Sequence[UUID]) -> None:
        """Update deployments made by an older version: the flow's path and parameter schema."""
        entrypoint, form = entrypoint_and_form(_FLOW)
        for found in (await self.read(deployment_ids, ())).values():
            deployment = found.deployment
            known = deployment.entrypoint, deployment.parameter_openapi_schema
            if known == (entrypoint, form):
                continue
            update = DeploymentUpdate(entrypoint=entrypoint, parameter_openapi_schema=form)
            async with self._engine.asking() as client:
                await client.update_deployment(deployment.id, update)
                await _make_runs(client, deployment.id, not deployment.paused)

    async def tell(self, deployment_id: UUID, notice: str | None) -> None:
        """Show a notice and pause the schedule; without a notice, remove the one that is shown."""
        async with self._engine.asking() as client:
            try:
                deployment = await client.read_deployment(deployment_id)
            except ObjectNotFound:
                return
            update = DeploymentUpdate(description=with_notice(deployment.description, notice))
            if notice is not None:
                update.paused = True
            await client.update_deployment(deployment_id, update)
            await _make_runs(client, deployment_id, not (notice or deployment.paused))
            if notice is None:
                return
            owned = await client.read_resource_related_automations(_resource(deployment_id))
            for automation in owned:
                await _switch(client, automation, active=False)

    async def delete(self, deployment_id: UUID) -> None:
        """Delete a schedule's deployment and its automation, if they exist."""
        async with self._engine.asking() as client:
            await client.delete_resource_owned_automations(_resource(deployment_id))
            try:
                await client.delete_deployment(deployment_id)
            except ObjectNotFound:
                return

    async def delete_named(self, name: str) -> None:
        """Delete the schedule whose deployment has this name, if it exists."""
        async with self._engine.asking() as client:
            try:
                deployment = await client.read_deployment_by_name(f"{_FLOW}/{name}")
            except ObjectNotFound:
                return
        await self.delete(deployment.id)

    async def read(
        self, deployment_ids: Sequence[UUID], automation_ids: Sequence[UUID]
    ) -> dict[UUID, InPrefect]:
        """The existing schedules with these deployments, by the ids of the deployments."""
        deployments: list[DeploymentResponse] = []
        automations: list[Automation] = []
        async with self._engine.asking() as client:
            for begin in range(0, len(deployment_ids), _PAGE):
                ids = DeploymentFilterId(any_=list(deployment_ids[begin : begin + _PAGE]))
                deployments += await client.read_deployments(
                    deployment_filter=DeploymentFilter(id=ids),
                    sort=DeploymentSort.NAME_ASC,
                    limit=_PAGE,
                )
            for begin in range(0, len(automation_ids), _PAGE):
                wanted = AutomationFilterId(any_=list(automation_ids[begin : begin + _PAGE]))
                automations += await client.read_automations(
                    automations=AutomationFilter(id=wanted),
                    sort=AutomationSort.NAME_ASC,
                    limit=_PAGE,
                )
        started = {
            action.deployment_id: automation
            for automation in automations
            for action in automation.actions
            if isinstance(action, RunDeployment)
        }
        return {each.id: InPrefect(each, started.get(each.id)) for each in deployments}

    async def occurrences(self, deployment_id: UUID) -> tuple[list[FlowRun], list[FlowRun]]:
        """The next flow runs of a schedule, and its latest ones that were due, newest first."""
        moment = now()
        of_it = FlowRunFilterDeploymentId(any_=[deployment_id])
        async with self._engine.asking() as client:
            coming = await client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    deployment_id=of_it,
                    expected_start_time=FlowRunFilterExpectedStartTime(after_=moment),
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=_NEXT,
            )
            latest = await client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    deployment_id=of_it,
                    expected_start_time=FlowRunFilterExpectedStartTime(before_=moment),
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=_LATEST,
            )
        return coming, latest


async def _make_runs(client: PrefectClient, deployment_id: UUID, active: bool) -> None:
    """If the deployment is active, make Prefect create its next flow runs now.

    Prefect deletes them when a deployment is changed, and creates new ones some seconds later: the
    flow run of a time in between would be lost.
    """
    if active:
        await client.request(
            "POST", "/deployments/{id}/schedule", path_params={"id": deployment_id}, json={}
        )


async def _switch(client: PrefectClient, automation: Automation | None, active: bool) -> None:
    if automation is not None:
        change = client.resume_automation if active else client.pause_automation
        await change(automation.id)


async def _automate(
    client: PrefectClient, deployment_id: UUID, name: str, plan: SchedulePlan
) -> UUID | None:
    """Make the automation that runs a deployment after another job, if the plan has such a job."""
    if plan.after is None:
        return None
    related = {
        "project": plan.request.project,
        "workflow": plan.after.workflow_id,
        "dataset": plan.after.dataset_id,
    }
    return await client.create_automation(
        AutomationCore(
            name=name,
            description="Runs a Fractal schedule when the job that it waits for is done.",
            enabled=plan.active,
            tags=[TAG, *plan.tags],
            trigger=EventTrigger(
                expect={_DONE},
                match_related=[
                    {
                        "prefect.resource.id": f"fractal.{role}.{id_}",
                        "prefect.resource.role": role,
                    }
                    for role, id_ in related.items()
                ],
            ),
            actions=[RunDeployment(source="selected", deployment_id=deployment_id)],
            owner_resource=_resource(deployment_id),
        )
    )


def _resource(deployment_id: UUID) -> str:
    return f"prefect.deployment.{deployment_id}"
