"""Importing this module imports everything that the process of a flow run needs."""

import importlib

from sqlalchemy.orm import configure_mappers

for _module in (
    "deployments.cli",  # the worker's main module
    "deployments.flow_run_process",
    "deployments.worker",
    "flows.activities.activation",
    "flows.activities.collect",
    "flows.job.flow",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.artifacts",
    # What Prefect and its client import when they run.
    "prefect.utilities.visualization",
    "anyio._backends._asyncio",
    "encodings.idna",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "asyncpg",
):
    importlib.import_module(_module)

configure_mappers()
