"""Connections to the Fractal database."""

import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import asyncpg
from sqlalchemy import URL, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    async_sessionmaker,
    create_async_engine,
)
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import UnavailableError
from fractal_models.exact_json import dumps, loads

# Classes of SQLSTATE: connection exception, insufficient resources, operator intervention.
_OUTAGES = ("08", "53", "57")
_SERIALIZATION_FAILURE, _DEADLOCK, _QUERY_CANCELED = "40001", "40P01", "57014"

_kept: dict[URL, AsyncEngine] = {}

# Of PostgreSQL, for all sessions of an engine, e.g. `statement_timeout`.
Parameters = Mapping[str, str]

_MANY_ROWS = 10_000
_CONNECT_SECONDS = 10.0
_KEPT_CONNECTIONS = 5  # others are closed when they are free
# Pages are read along an index, up to their end, also where PostgreSQL expects so few rows that it
# would fetch and sort them all: what it expects is wrong for a dataset that has just been made.
_PLANNING = {"enable_bitmapscan": "off", "random_page_cost": "1.1", "jit": "off"}
# A silent host is probed after 10 s, and given up after 40 s. A host that does not confirm data is
# given up after 30 s. (A statement may take any time.)
_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES, _UNCONFIRMED_SECONDS = 10, 10, 3, 30


class DatabaseAwayError(UnavailableError, ConnectionError):
    """PostgreSQL does not accept a connection; the message says why."""


def is_outage(error: BaseException) -> bool:
    """Whether it is worth trying again after this error: no statement and no data is wrong.

    Then the database is away, out of room, or could not serve two transactions at the same time.
    """
    if isinstance(error, DBAPIError):
        away = error.connection_invalidated or isinstance(error, InterfaceError)
        return away or _passes(getattr(error.orig, "sqlstate", None))
    return isinstance(error, (OSError, NoConnectionError))  # a TimeoutError is an OSError


def _passes(sqlstate: str | None) -> bool:
    """Whether the condition behind an SQLSTATE passes by itself."""
    if sqlstate is None or sqlstate == _QUERY_CANCELED:  # cancelled by somebody, or too slow
        return False
    return sqlstate[:2] in _OUTAGES or sqlstate in (_SERIALIZATION_FAILURE, _DEADLOCK)


def is_too_slow(error: BaseException) -> bool:
    """Whether PostgreSQL ended a statement, which took longer than it may."""
    orig = getattr(error, "orig", None)
    return getattr(orig, "sqlstate", None) == _QUERY_CANCELED


async def connect(url: URL, **options: Any) -> asyncpg.Connection:
    """Open a connection outside of any engine. It breaks if the host vanishes.

    Raises:
        DatabaseAwayError: PostgreSQL does not accept a connection, or not within 10 s.
    """
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS, **options)
    except asyncpg.PostgresError as error:
        if not _passes(error.sqlstate):
            raise
        raise DatabaseAwayError(f"PostgreSQL does not take connections: {error}") from error
    except TimeoutError as error:
        raise DatabaseAwayError(
            f"PostgreSQL does not take a connection within {_CONNECT_SECONDS:.0f} s."
        ) from error
    except OSError as error:
        raise DatabaseAwayError(f"PostgreSQL cannot be reached: {error}") from error
    _watch_host(connection._transport.get_extra_info("socket"))  # asyncpg has no way of its own
    return connection


def _watch_host(connected: socket.socket) -> None:
    """Make the kernel break a TCP connection if the other host vanishes silently."""
    if connected.family == socket.AF_UNIX or sys.platform != "linux":
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _IDLE_SECONDS),
        (socket.TCP_KEEPINTVL, _INTERVAL_SECONDS),
        (socket.TCP_KEEPCNT, _PROBES),
        (socket.TCP_USER_TIMEOUT, _UNCONFIRMED_SECONDS * 1000),
    ):
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


def connection_pool(
    url: URL, *, connections: int = 15, parameters: Parameters | None = None
) -> AsyncEngine:
    """An engine that stores numbers in JSON exactly, and whose errors do not contain parameters."""
    engine = create_async_engine(
        url,
        async_creator=partial(connect, url, server_settings={**_PLANNING, **(parameters or {})}),
        pool_size=min(connections, _KEPT_CONNECTIONS),
        max_overflow=max(0, connections - _KEPT_CONNECTIONS),
        pool_use_lifo=True,  # its statements are prepared there, and its caches are warm
        hide_parameters=True,
        json_serializer=_dump_json,
        json_deserializer=loads,
    )
    event.listen(engine.sync_engine, "checkout", _discard_closed)
    return engine


def keep_pool(url: URL) -> None:
    """Have `open_database` use one engine for this database, again and again, also after a fork.

    Statements that it has compiled stay so. Only for processes with one event loop at a time.
    """
    _kept[url] = connection_pool(url)


def _discard_closed(connection: Any, *_: Any) -> None:
    """Make the pool replace a connection that broke while it was not used.

    asyncpg notices that by itself, so SQLAlchemy's ping, with its three round trips, is not needed.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError("The connection was closed while it was not used.")


@asynccontextmanager
async def reading(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncConnection]:
    """A connection for statements that read, each by itself.

    There is no transaction, which would take two round trips, and nothing is loaded into a session.
    """
    engine: AsyncEngine = sessions.kw["bind"]
    async with engine.connect() as connection:
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")


async def allow_seconds(session: AsyncSession, seconds: float) -> None:
    """Let the statements of this transaction take so long, whatever others may."""
    await session.execute(text(f"SET LOCAL statement_timeout = {round(1000 * seconds)}"))


async def one_moment(session: AsyncSession) -> None:
    """Commit, and have the statements that follow only read, all of them what there is now."""
    await session.commit()
    await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def analyse(session: AsyncSession, changed: int, *tables: str) -> None:
    """Have PostgreSQL take its statistics of tables anew, if many rows were changed (committed).

    Its autovacuum waits for a tenth of a table to change, which on a large site takes for ever.
    """
    if changed >= _MANY_ROWS:
        await session.execute(text(f"ANALYZE {', '.join(tables)}"))
        await session.commit()


async def release(session: AsyncSession) -> None:
    """Commit, and return the connection to the pool, before waiting for something slow.

    Objects that the session has loaded stay readable. There are few connections, and every other
    request needs one.
    """
    await session.commit()


class _Row(Protocol):
    id: int | None


def saved_id(row: _Row) -> int:
    """The id of a row that was written, so that the database has set it.

    Raises:
        ValueError: the row has not been written.
    """
    if row.id is None:
        raise ValueError(f"{type(row).__name__} has not been written, so it has no id.")
    return row.id


def _dump_json(value: Any) -> str:
    return dumps(value).decode()


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """A factory for sessions whose objects stay readable after a commit."""
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


@asynccontextmanager
async def open_database(
    url: URL, parameters: Parameters | None = None, *, connections: int = 15
) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """A session factory for the duration of a block, e.g. of one flow run."""
    kept = _kept.get(url) if parameters is None else None
    engine = kept or connection_pool(url, connections=connections, parameters=parameters)
    try:
        yield session_factory(engine)
    finally:
        await engine.dispose()
