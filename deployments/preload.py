"""Importing this module imports everything that the process of a flow run needs."""

import importlib
import os

# For calls of the Prefect API that get no answer; what must not be lost is tried for longer.
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "2")

from sqlalchemy.orm import configure_mappers

from deployments.secrecy import keep_secrets

keep_secrets()

SERVER_PID = os.getpid()  # the process that imports this; processes that it forks inherit the value

for _module in (
    "deployments.cli",  # the worker's main module, which every fork goes through
    "flows.activities.activation",
    "flows.activities.collect",
    "flows.job.flow",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.artifacts",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "asyncpg",
):
    importlib.import_module(_module)

configure_mappers()
