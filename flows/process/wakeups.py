"""Wakes workers when there is something to do for them, by PostgreSQL's notifications.

They look now and then in any case: a notification only makes them look at once.
"""

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
from sqlalchemy import URL, text
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import DatabaseAwayError, connect

_CHANNEL = "fractal_workers"
_NOTIFY = text(f"NOTIFY {_CHANNEL}")


async def wake_workers(session: AsyncSession) -> None:
    """Wake all workers when the transaction of this session is committed."""
    await session.execute(_NOTIFY)


class Wakeups:
    """What wakes a worker, over a connection of its own."""

    def __init__(self, database: URL) -> None:
        self._database = database
        self._connection: asyncpg.Connection | None = None
        self._woken = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when the worker is woken, or after so many seconds.

        It also returns at once if it was woken since the last call. While the database is away,
        nobody is woken.
        """
        began = asyncio.get_running_loop().time()
        await self._listen()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(began + seconds):
                await self._woken.wait()
        self._woken.clear()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()

    async def _listen(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            return
        with suppress(DatabaseAwayError, asyncpg.PostgresError, OSError):
            self._connection = await connect(self._database)
            await self._connection.add_listener(_CHANNEL, self._wake)

    def _wake(self, *_: Any) -> None:
        self._woken.set()
