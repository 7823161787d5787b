"""The base of all watchers, and what is said while Prefect or the database is away."""

import abc
import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg
import httpx
from prefect.exceptions import PrefectHTTPStatusError
from sqlalchemy.exc import SQLAlchemyError

from flows.engine.client import EngineError, EngineRefusedError

logger = logging.getLogger(__name__)

PREFECT_ERRORS = (EngineError, PrefectHTTPStatusError, httpx.TransportError)
_DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, OSError)
# What is raised while Prefect or the database does not answer.
AWAY = (*PREFECT_ERRORS, *_DATABASE_ERRORS)
_AGAIN_SECONDS = 60.0


@dataclass
class _Outage:
    """Since when something is away, when that was last said, and who has met with it."""

    began: float
    said: float
    who: set[str] = field(default_factory=set)


class Outages:
    """Says that something is away when that begins, then once a minute, and when it is over.

    It is over when all who met with it have had their answer.
    """

    def __init__(
        self,
        say: Callable[[str], object] = logger.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self._outages: dict[str, _Outage] = {}

    def met(self, who: str, error: Exception) -> None:
        """Somebody could not do their work, for one of `AWAY`."""
        what, moment = _what(error), self._clock()
        found = self._outages.get(what)
        if found is None:
            found = self._outages[what] = _Outage(moment, moment)
            self._say(f"{what} is away, and is waited for. {error or repr(error)}")
        elif moment - found.said >= _AGAIN_SECONDS:
            found.said = moment
            self._say(f"{what} is away for {moment - found.began:.0f} s. {error or repr(error)}")
        found.who.add(who)

    def survived(self, who: str) -> None:
        """Somebody could do their work."""
        for what, found in list(self._outages.items()):
            found.who.discard(who)
            if not found.who:
                del self._outages[what]
                self._say(f"{what} is back after {self._clock() - found.began:.0f} s.")


def _what(error: Exception) -> str:
    return "Prefect" if isinstance(error, PREFECT_ERRORS) else "The database or a disk"


class Watcher(abc.ABC):
    """Looks after things of one kind, also while Prefect or the database is away."""

    seconds = 1.0  # between two looks

    @abc.abstractmethod
    async def look(self) -> None:
        """Look once at all of them.

        Raises:
            EngineUnavailableError, SQLAlchemyError, OSError: Prefect or the database is away.
        """

    async def watch(self, outages: Outages) -> None:
        """Look again and again, until cancelled. What is away is waited for."""
        who = type(self).__name__
        while True:
            try:
                await self.look()
            except AWAY as error:
                outages.met(who, error)
            else:
                outages.survived(who)
            await asyncio.sleep(self.seconds)


def refused(what: str, error: EngineRefusedError) -> None:
    """Prefect refuses something of one thing: that must not keep the others waiting."""
    logger.warning("%s waits, Prefect refuses it: %s", what, error)
