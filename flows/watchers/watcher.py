"""The base class of all watchers, and the messages while Prefect or the database is away."""

import abc
import asyncio
import logging
import math
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
# Errors that mean that Prefect or the database does not answer.
AWAY = (*PREFECT_ERRORS, *_DATABASE_ERRORS)
_AGAIN_SECONDS = 60.0


@dataclass
class _Outage:
    """Since when something is away, when that was last logged, and which watchers noticed it."""

    began: float
    said: float
    who: set[str] = field(default_factory=set)


class Outages:
    """Logs that something is away: when it begins, then once a minute, and when it is over.

    It is over when every watcher that noticed it has had an answer.
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
        """Note that a watcher could not do its work because of one of the errors in `AWAY`."""
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
        """Note that a watcher could do its work."""
        for what, found in list(self._outages.items()):
            found.who.discard(who)
            if not found.who:
                del self._outages[what]
                self._say(f"{what} is back after {self._clock() - found.began:.0f} s.")


def _what(error: Exception) -> str:
    return "Prefect" if isinstance(error, PREFECT_ERRORS) else "The database or a disk"


class Watcher(abc.ABC):
    """Looks after things of one kind, and goes on while Prefect or the database is away."""

    seconds = 1.0  # between two looks
    _looked = math.inf  # when it could look the last time, on the monotonic clock

    @abc.abstractmethod
    async def look(self) -> None:
        """Check all these things once.

        Raises:
            EngineUnavailableError, SQLAlchemyError, OSError: Prefect or the database is away.
        """

    async def watch(self, outages: Outages) -> None:
        """Call `look` again and again until cancelled; while something is away, keep trying."""
        who = type(self).__name__
        self._looked = time.monotonic()
        while True:
            try:
                await self.look()
            except AWAY as error:
                outages.met(who, error)
            else:
                outages.survived(who)
                self._looked = time.monotonic()
            await asyncio.sleep(self.seconds)

    def silence(self) -> float:
        """For how many seconds it could not look; 0 if it has not begun."""
        return max(0.0, time.monotonic() - self._looked)


def refused(what: str, error: EngineRefusedError) -> None:
    """Log that Prefect refuses a request for one thing, which must not delay the others."""
    logger.warning("%s waits, Prefect refuses it: %s", what, error)
