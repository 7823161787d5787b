"""Connections to the database: which errors pass by themselves, and how long is waited."""

import asyncio
import socket
import time

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models import database as module
from fractal_models.database import DatabaseAwayError, connect, is_outage

Sessions = async_sessionmaker[AsyncSession]


async def execute(session: AsyncSession, statement: str) -> None:
    await (await session.connection()).execute(text(statement))


async def test_a_deadlock_is_tried_again(sessions: Sessions) -> None:
    async with sessions() as one, sessions() as other:
        await execute(one, "SELECT pg_advisory_xact_lock(1)")
        await execute(other, "SELECT pg_advisory_xact_lock(2)")
        outcomes = await asyncio.gather(
            _lock_and_end(one, 2), _lock_and_end(other, 1), return_exceptions=True
        )
    (error,) = [outcome for outcome in outcomes if outcome is not None]
    assert "deadlock detected" in str(error)
    assert is_outage(error)


async def _lock_and_end(session: AsyncSession, key: int) -> None:
    try:
        await execute(session, f"SELECT pg_advisory_xact_lock({key})")
    finally:
        await session.rollback()


async def test_a_serialization_failure_is_tried_again(sessions: Sessions) -> None:
    async with sessions() as session:
        await execute(session, "CREATE TABLE counter AS SELECT 0 AS value")
        await session.commit()
    async with sessions() as one, sessions() as other:
        await one.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await execute(one, "SELECT value FROM counter")
        await execute(other, "UPDATE counter SET value = 1")
        await other.commit()
        with pytest.raises(DBAPIError) as raised:
            await execute(one, "UPDATE counter SET value = 2")
    assert "could not serialize" in str(raised.value)
    assert is_outage(raised.value)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT pg_sleep(60)", "statement timeout"),
        ("SELECT 1 / 0", "division by zero"),
        ("SELECT nothing", "does not exist"),
    ],
)
async def test_a_statement_that_fails_by_itself_is_no_outage(
    session: AsyncSession, statement: str, told: str
) -> None:
    await execute(session, "SET LOCAL statement_timeout = '1s'")
    with pytest.raises(DBAPIError, match=told) as raised:
        await execute(session, statement)
    assert not is_outage(raised.value)


async def test_a_connection_that_the_server_ends_is_an_outage(session: AsyncSession) -> None:
    with pytest.raises(DBAPIError) as raised:
        await execute(session, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert is_outage(raised.value)


async def test_a_server_that_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = URL.create("postgresql+asyncpg", "nobody", host="127.0.0.1")
        begun = time.monotonic()
        with pytest.raises(DatabaseAwayError, match="does not take a connection"):
            await connect(url.set(port=silent.getsockname()[1]))
    assert time.monotonic() - begun < 10
