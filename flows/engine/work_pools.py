"""A Fractal resource as a Prefect work pool: its worker type and the form of its variables."""

from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.base import BaseJobConfiguration, BaseVariables

from fractal_models.schemas.resource import JobRunnerConfigLocal
from fractal_models.schemas.slurm import JobRunnerConfigSLURM
from fractal_models.tables import Resource

# The variable from which Prefect takes a flow run's entrypoint, without asking for its deployment.
ENTRYPOINT_VARIABLE = "PREFECT__FLOW_ENTRYPOINT"
# The name of the deployment, of which a flow run has only the id.
DEPLOYMENT_VARIABLE = "FRACTAL_DEPLOYMENT"


class JobConfiguration(BaseJobConfiguration):
    """How a worker starts a flow run, and how the units of its job run."""

    def runner_config(self) -> dict[str, Any]:
        """The runner configuration of this flow run; empty if the resource's applies."""
        fields = set(type(self).model_fields) - set(BaseJobConfiguration.model_fields)
        return self.model_dump(mode="json", include=fields, exclude_unset=True, exclude_none=True)

    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Fill in what depends on the flow run, also the path from which its flow is imported."""
        super().prepare_for_flow_run(flow_run, deployment, *args, **kwargs)
        if deployment is not None and deployment.entrypoint is not None:
            self.env[ENTRYPOINT_VARIABLE] = deployment.entrypoint
            self.env[DEPLOYMENT_VARIABLE] = deployment.name


class LocalVariables(JobRunnerConfigLocal, BaseVariables):
    """The form of a local resource's work pool in the Prefect UI."""


class LocalJobConfiguration(JobRunnerConfigLocal, JobConfiguration):
    """How a worker of a local resource starts a flow run."""


class SlurmVariables(JobRunnerConfigSLURM, BaseVariables):
    """The form of a SLURM cluster's work pool in the Prefect UI."""


class SlurmJobConfiguration(JobRunnerConfigSLURM, JobConfiguration):
    """How a worker of a SLURM cluster starts a flow run."""


WorkerType = tuple[str, type[BaseVariables], type[JobConfiguration]]

_LOCAL: WorkerType = ("fractal-local", LocalVariables, LocalJobConfiguration)
_SLURM: WorkerType = ("fractal-slurm", SlurmVariables, SlurmJobConfiguration)
# Per resource type: the worker type and its forms.
WORKER_TYPES = {
    "local": _LOCAL,
    "slurm_sudo": _SLURM,
    "slurm_ssh": _SLURM,
}


def work_pool_of(resource: Resource) -> tuple[str, dict[str, Any]]:
    """The worker type and the base job template of a resource's work pool.

    The resource's runner configuration provides the defaults of the template's variables.
    """
    worker_type, variables, configuration = WORKER_TYPES[resource.type]
    schema = variables.model_json_schema()
    del schema["title"]  # as in the templates that Prefect makes of worker types
    for name, value in resource.jobs_runner_config.items():
        if name in schema["properties"]:
            schema["properties"][name]["default"] = value
    return worker_type, {"job_configuration": configuration.json_template(), "variables": schema}
