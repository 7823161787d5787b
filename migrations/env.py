"""How Alembic reaches the database: with asyncpg, asynchronously or by a connection it is given."""

import asyncio
from typing import Literal

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

import fractal_models.tables  # noqa: F401  (fills the metadata)


def _render_item(kind: str, item: object, _: object) -> str | Literal[False]:
    """Migrations need not import SQLModel for its name of a plain string."""
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_item=_render_item,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _connect_and_migrate() -> None:
    engine = create_async_engine(context.config.attributes["url"], poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
        await connection.commit()
    await engine.dispose()


if "connection" in context.config.attributes:
    _migrate(context.config.attributes["connection"])
else:
    asyncio.run(_connect_and_migrate())
