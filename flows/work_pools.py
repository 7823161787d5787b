"""A Fractal resource as a Prefect work pool: its worker type and the form of its variables."""

from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.base import BaseJobConfiguration, BaseVariables
from pydantic import Field, PositiveInt

from fractal_models.tables import Resource

PARALLEL_TASKS = "Units of a job that run at once; default: the number of cores."

# From which Prefect takes the entrypoint of a flow run, without asking for its deployment.
ENTRYPOINT_VARIABLE = "PREFECT__FLOW_ENTRYPOINT"


class UnsupportedResourceError(ValueError):
    """There is no launcher for resources of this type."""


class LocalVariables(BaseVariables):
    """The form of a local resource's work pool in the Prefect UI."""

    parallel_tasks_per_job: PositiveInt | None = Field(default=None, description=PARALLEL_TASKS)


class LocalJobConfiguration(BaseJobConfiguration):
    """How a worker of a local resource starts a flow run."""

    parallel_tasks_per_job: PositiveInt | None = Field(default=None, description=PARALLEL_TASKS)

    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Fill in what depends on the flow run: also where its flow is imported from."""
        super().prepare_for_flow_run(flow_run, deployment, *args, **kwargs)
        if deployment is not None and deployment.entrypoint is not None:
            self.env[ENTRYPOINT_VARIABLE] = deployment.entrypoint


# Per resource type: the worker type and its forms.
WORKER_TYPES = {"local": ("fractal-local", LocalVariables, LocalJobConfiguration)}


def work_pool_of(resource: Resource) -> tuple[str, dict[str, Any]]:
    """The worker type and base job template of the work pool that a resource is.

    The resource's runner configuration gives the defaults of the template's variables.

    Raises:
        UnsupportedResourceError: no launcher for this type of resource.
    """
    if resource.type not in WORKER_TYPES:
        raise UnsupportedResourceError(
            f"Resources of type {resource.type!r} cannot run jobs; "
            f"supported: {', '.join(WORKER_TYPES)}."
        )
    worker_type, variables, configuration = WORKER_TYPES[resource.type]
    schema = variables.model_json_schema()
    for name, value in resource.jobs_runner_config.items():
        if name in schema["properties"]:
            schema["properties"][name]["default"] = value
    return worker_type, {"job_configuration": configuration.json_template(), "variables": schema}
