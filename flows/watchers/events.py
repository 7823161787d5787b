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

_BATCH = 50  # how many events Prefect returns at once
# Prefect keeps events in memory and stores them about 5 s later, so it is asked for them only then.
# An event that it still does not have after 20 s was lost. An event that is sent twice is
# recognised by its id.
_STORED_AFTER = timedelta(seconds=5)
_AGAIN_AFTER = timedelta(seconds=20)


class EventSender(Watcher):
    """Sends the events of all resources; it does not matter which worker does it."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], engine: Engine) -> None:
        self._sessions = sessions
        self._engine = engine

    async def look(self) -> None:
        """Delete the events that Prefect has stored, and send those that are due."""
        async with self._sessions() as session:
            if sent := await outbox.read_sent(session, _BATCH, _STORED_AFTER):
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
