"""Importing this module imports everything that the process of a flow run needs."""

import gc
import importlib
import os

# For calls of the Prefect API that get no answer; what must not be lost is tried for longer.
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "2")
# Where there is no TLS, no client of Prefect needs to read all certificates of this machine.
if os.environ.get("PREFECT_API_URL", "").startswith("http://"):
    os.environ["PREFECT_API_TLS_INSECURE_SKIP_VERIFY"] = "true"

from sqlalchemy.orm import configure_mappers

from deployments.secrecy import keep_secrets

keep_secrets()

SERVER_PID = os.getpid()  # the process that imports this; processes that it forks inherit the value

for _module in (
    "deployments.cli",  # the worker's main module, which every fork goes through
    "deployments.flow_run_process",  # as does what it is to run
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

# The garbage collector of a fork need not look at all this again, and copy its memory by that.
gc.collect()
gc.freeze()
