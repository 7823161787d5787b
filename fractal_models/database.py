"""Connections to the Fractal database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import orjson
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession


def make_engine(url: URL, *, pool_size: int = 5) -> AsyncEngine:
    """An engine whose JSON is read and written by orjson: image lists are long."""
    return create_async_engine(
        url,
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
