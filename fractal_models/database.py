"""Connections to the Fractal database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import asyncpg
import orjson
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

# Classes of SQLSTATE: connection exception, insufficient resources, operator intervention.
_OUTAGES = ("08", "53", "57")


class DatabaseAwayError(ConnectionError):
    """PostgreSQL does not accept a connection; the message says why."""


def is_outage(error: BaseException) -> bool:
    """Whether the database is away or out of room, rather than a statement or its data wrong."""
    if isinstance(error, DBAPIError):
        sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
        away = error.connection_invalidated or isinstance(error, InterfaceError)
        return away or sqlstate[:2] in _OUTAGES
    return isinstance(error, OSError)  # a TimeoutError is one too


async def connect(url: URL, **options: Any) -> asyncpg.Connection:
    """A connection of one's own, outside of any engine.

    Raises:
        DatabaseAwayError: it cannot be made.
    """
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        return await asyncpg.connect(dsn, **options)
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] not in _OUTAGES:
            raise
        raise DatabaseAwayError(f"PostgreSQL does not take connections: {error}") from error
    except OSError as error:
        raise DatabaseAwayError(f"PostgreSQL cannot be reached: {error}") from error


def make_engine(url: URL, *, pool_size: int = 5) -> AsyncEngine:
    """An engine whose JSON is read and written by orjson: image lists are long."""
    return create_async_engine(
        url,
        async_creator=partial(connect, url),
        pool_size=pool_size,
        pool_pre_ping=True,
        json_serializer=_dump_json,
        json_deserializer=orjson.loads,
    )


class _Row(Protocol):
    id: int | None


def saved_id(row: _Row) -> int:
    """The id of a row that has been written: the database gave it one."""
    if row.id is None:
        raise ValueError(f"{type(row).__name__} has not been written, so it has no id.")
    return row.id


def _dump_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions whose objects stay readable after a commit."""
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


@asynccontextmanager
async def open_database(url: URL) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """A session factory for the life of a block, e.g. of one flow run."""
    engine = make_engine(url)
    try:
        yield session_factory(engine)
    finally:
        await engine.dispose()
