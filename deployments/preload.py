"""Importing this module imports and makes everything that the process of a flow run needs."""

import importlib

from prefect.artifacts import ProgressArtifact
from prefect.client.schemas.actions import ArtifactCreate, FlowRunUpdate, LogCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact, ConcurrencyLeaseHolder, FlowRun
from prefect.events.schemas.events import Event
from pydantic import BaseModel
from sqlalchemy.orm import configure_mappers

from deployments.flow_run_process import clients_before_fork

for _module in (
    "deployments.cli",  # the worker's main module
    "deployments.worker",
    "flows.activities.activation",
    "flows.activities.collect",
    "flows.job.flow",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    # What Prefect and its client import when they run.
    "prefect.utilities.visualization",
    "anyio._backends._asyncio",
    "encodings.idna",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "asyncpg",
):
    importlib.import_module(_module)

configure_mappers()
clients_before_fork()

# What Prefect declares is built by Pydantic only when it is used.
_USED: tuple[type[BaseModel], ...] = (
    *(Artifact, ArtifactCreate, ProgressArtifact),
    *(FlowRun, FlowRunFilter, FlowRunFilterId, FlowRunUpdate),
    *(ConcurrencyLeaseHolder, Event, LogCreate),
)
for _model in _USED:
    _model.model_rebuild()
