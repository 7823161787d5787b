"""Publishes a resource in Prefect: as a work pool, with a deployment for each flow."""

from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object

from flows.engine.client import Engine, UnpublishedError
from flows.engine.descriptions import DESCRIPTIONS
from flows.engine.work_pools import work_pool_of
from fractal_models.tables import Resource

# Prefect's name of each flow, and the path from which workers import it.
ENTRYPOINTS = {
    "run-job": "flows.job.run_job",
    "collect-tasks": "flows.activities.collect.collect_tasks",
    "deactivate-tasks": "flows.activities.activation.deactivate_tasks",
    "reactivate-tasks": "flows.activities.activation.reactivate_tasks",
    "reset-tasks": "flows.activities.reset.reset_tasks",
    "delete-tasks": "flows.activities.delete.delete_tasks",
}

# A description that begins like this was not changed by anybody in Prefect.
_DESCRIPTION = "Fractal resource "


async def publish_resource(engine: Engine, resource: Resource) -> None:
    """Make or update the resource's work pool and its deployments.

    Settings made in Prefect (a pause, limits, queues, job variables) stay.
    """
    pool, (pool_type, template) = resource.work_pool, work_pool_of(resource)
    description = f"{_DESCRIPTION}{resource.name}."
    async with engine.asking() as client:
        try:
            await client.create_work_pool(
                WorkPoolCreate(
                    name=pool, type=pool_type, base_job_template=template, description=description
                )
            )
        except ObjectAlreadyExists:
            found = await client.read_work_pool(pool)
            update = WorkPoolUpdate(base_job_template=template)
            if not found.description or found.description.startswith(_DESCRIPTION):
                update.description = description
            await client.update_work_pool(pool, update)
        for flow_name in ENTRYPOINTS:
            await _publish_deployment(client, flow_name, pool)


async def hold_resource(engine: Engine, pool: str, held: bool) -> None:
    """With `held`, let no flow run begin on a resource; otherwise let them begin again.

    Raises:
        UnpublishedError: no worker has made the resource's work pool yet.
    """
    async with engine.asking() as client:
        try:
            await client.update_work_pool(pool, WorkPoolUpdate(is_paused=held))
        except ObjectNotFound as error:
            raise UnpublishedError(f"work pool {pool!r}") from error


async def withdraw_resource(engine: Engine, pool: str) -> None:
    """Delete the resource's work pool, if it exists."""
    async with engine.asking() as client:
        try:
            await client.delete_work_pool(pool)
        except ObjectNotFound:
            return


async def _publish_deployment(client: PrefectClient, flow_name: str, pool: str) -> None:
    entrypoint, form = entrypoint_and_form(flow_name)
    description = DESCRIPTIONS[flow_name]
    try:
        found = await client.read_deployment_by_name(f"{flow_name}/{pool}")
    except ObjectNotFound:
        await client.create_deployment(
            flow_id=await client.create_flow_from_name(flow_name),
            name=pool,
            entrypoint=entrypoint,
            description=description,
            work_pool_name=pool,
            parameter_openapi_schema=form,
            enforce_parameter_schema=True,
        )
    else:  # creating it once more would empty its job variables
        update = DeploymentUpdate(
            entrypoint=entrypoint,
            description=description,
            parameter_openapi_schema=form,
            enforce_parameter_schema=True,
        )
        if found.work_pool_name != pool:  # saying it again would reset the queue
            update.work_pool_name = pool
        await client.update_deployment(found.id, update)


def entrypoint_and_form(flow_name: str) -> tuple[str, dict[str, Any]]:
    """The path from which workers import a flow, and the schema of its parameters."""
    entrypoint = ENTRYPOINTS[flow_name]
    return entrypoint, parameter_schema(import_object(entrypoint)).model_dump_for_openapi()
