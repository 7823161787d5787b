"""Importing this module imports everything that a Prefect server needs, also what it imports late.

What is imported before a fork is shared by all processes; after it, each has it for its own.
"""

import importlib
from contextlib import suppress

import prefect.server.api.server  # noqa: F401

# What the server imports when it starts: how it serves, its database, its queues. Another version
# of Prefect may do without.
IMPORTED_LATE = (
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "fastapi.telemetry._runtime",
    "anyio._backends._asyncio",
    "encodings.idna",
    "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "alembic.command",
    "prefect.server.api.clients",
    "prefect.server.concurrency.lease_storage.memory",
    "prefect.server.database.query_components",
    "prefect.server.events.ordering.memory",
    "prefect.server.events.services.actions",
    "prefect.server.events.services.event_logger",
    "prefect.server.worker_communication.cleanup_queue.memory",
    "burner_redis",
    "docket._redis_credentials",
    "docket._redis_memory",
    "docket._redis_sentinel",
    "docket.tasks",
)
for _module in IMPORTED_LATE:
    with suppress(ModuleNotFoundError):
        importlib.import_module(_module)
