"""Imports, when it is imported, everything that the process of a flow run will need."""

import importlib
import os

# Of a call of the Prefect API that gets no answer; what must not be lost is tried for longer.
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "2")

from sqlalchemy.orm import configure_mappers

from deployments.secrecy import keep_secrets

keep_secrets()

SERVER_PID = os.getpid()  # of the process that imports it: those that it forks only inherit it

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
