"""What programs of others import only when they run. It is imported before processes are forked.

What is imported before a fork is shared by all processes; after it, each has it for its own.
"""

import importlib
from collections.abc import Iterable
from contextlib import suppress

# By a Prefect server: how it serves, its database, its queues.
BY_SERVER = (
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
# By our processes: by Prefect and its client, by the database's driver, by the command line.
BY_OURS = (
    "prefect.utilities.visualization",
    "anyio._backends._asyncio",
    "encodings.idna",
    "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "typer._adapters",
    "typer._click.decorators",
)


def import_what_is_there(modules: Iterable[str]) -> None:
    """Import modules, of which other versions of those programs may do without some."""
    for module in modules:
        with suppress(ModuleNotFoundError):
            importlib.import_module(module)
