"""Sends events of jobs to Prefect, each once."""

import logging
from datetime import timedelta

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, EngineUnavailableError
from flows.records import outbox
from flows.watchers.watcher import Watcher
from fractal_models.database import release

logger = logging.getLogger(__name__)

_BATCH = 50  # so many events Prefect tells of at once
# Prefect takes events into its memory and writes them down some 5 s later. What it does not have
# after so long was lost with it. It knows an event that it is sent again by its id.
_AGAIN_AFTER = timedelta(seconds=20)


class EventSender(Watcher):
    """Sends the events of all resources: which worker does it does not matter."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], engine: Engine) -> None:
        self._sessions = sessions
        self._engine = engine

    async def look(self) -> None:
        """Forget the events that Prefect has written down, and send those that are due."""
        async with self._sessions() as session:
            if sent := await outbox.read_sent(session, _BATCH):
                await release(session)
                await outbox.forget(session, await self._engine.known_events(sent))
        async with self._sessions() as session:
            if events := await outbox.take_due(session, _BATCH, _AGAIN_AFTER):
                await release(session)
                try:
                    await self._engine.emit(events)
                except EngineUnavailableError:
                    await outbox.give_back(session, events)
                    raise
