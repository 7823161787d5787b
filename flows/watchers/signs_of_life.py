"""Notes in the database when the parts of a worker did their work the last time."""

import asyncio
from collections.abc import Callable, Mapping

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records.observation import sign
from flows.watchers.watcher import Watcher


class SignsOfLife(Watcher):
    """For those who watch an installation, and cannot ask a worker itself.

    `parts` tell for how many seconds they have not done their work.
    """

    seconds = 5.0

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        pool: str,
        parts: Mapping[str, Callable[[], float]],
    ) -> None:
        self._sessions = sessions
        self._pool = pool
        self._parts = parts

    async def look(self) -> None:
        """Note all of them."""
        silences = await asyncio.to_thread(
            lambda: {name: silence() for name, silence in self._parts.items()}
        )
        async with self._sessions() as session:
            await sign(session, self._pool, silences)
