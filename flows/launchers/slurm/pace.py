"""Spaces out what all processes of a host ask of a cluster."""

import asyncio
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

# Who waits for a turn asks again within these times, and is taken for dead if it has not for long.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 1.0
_DEAD_SECONDS = 10.0
# So long after a refusal others go first: longer than from one try of a submitter to its next.
_REFUSED_SECONDS = 120.0


@dataclass
class Waiting:
    """Somebody who waits for a turn of a user; times are in seconds since the epoch."""

    user: str
    since: float
    asked_at: float


@dataclass
class Turns:
    """Who waits for a turn, and when the latest one was.

    Turns go by the order of coming, but last to those whose user was refused lately, at the times
    in `refused`: whoever is at a limit tries again and again, which must not hold up the others.
    These, in turn, leave room soon, as each try is then either accepted or refused.
    """

    latest: float = 0.0
    waiting: dict[str, Waiting] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)

    def ask(self, who: str, user: str, now: float, seconds: float) -> float:
        """Ask for a turn that is at least `seconds` after the latest one.

        Returns 0 if this is it, and else the seconds after which to ask again.
        """
        self._forget(now)
        self.waiting.setdefault(who, Waiting(user, now, now)).asked_at = now
        place = sorted(self.waiting, key=self._rank).index(who)
        wait = self.latest + (place + 1) * seconds - now
        if place or wait > 0.0:
            return min(max(wait, _SHORTEST_WAIT), _LONGEST_WAIT)
        self.latest = now
        del self.waiting[who]
        return 0.0

    def _rank(self, who: str) -> tuple[bool, float, str]:
        waiting = self.waiting[who]
        return waiting.user in self.refused, waiting.since, who

    def _forget(self, now: float) -> None:
        """Leave out what is old, and what is from before the clock was set back."""
        self.latest = self.latest if self.latest <= now else 0.0
        self.refused = {
            user: when for user, when in self.refused.items() if 0 <= now - when < _REFUSED_SECONDS
        }
        self.waiting = {
            who: each
            for who, each in self.waiting.items()
            if 0 <= now - each.asked_at < _DEAD_SECONDS
        }


class Pace:
    """Gives turns to a user of a cluster, at least `seconds` apart for all who share a file.

    The file `path` has the turns: see `Turns` for who is next.
    """

    def __init__(self, path: Path, seconds: float, user: str) -> None:
        self._path = path
        self._seconds = seconds
        self._user = user

    async def turn(self) -> None:
        """Wait for the next turn."""
        who = uuid4().hex
        try:
            wait = await asyncio.to_thread(self._ask, who)
            while wait > 0.0:
                await asyncio.sleep(wait)
                wait = await asyncio.to_thread(self._ask, who)
        except asyncio.CancelledError:
            await asyncio.to_thread(self._leave, who)
            raise

    async def note_refusal(self) -> None:
        """Let other users go first for a while, as this one has reached a limit."""
        await asyncio.to_thread(self._refuse)

    def _ask(self, who: str) -> float:
        with self._turns() as turns:
            return turns.ask(who, self._user, time.time(), self._seconds)

    def _leave(self, who: str) -> None:
        with self._turns() as turns:
            turns.waiting.pop(who, None)

    def _refuse(self) -> None:
        with self._turns() as turns:
            turns.refused[self._user] = time.time()

    @contextmanager
    def _turns(self) -> Iterator[Turns]:
        """What the file has, to be changed while no other process does."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            turns = _read(file.read())
            yield turns
            file.truncate(0)
            file.write(json.dumps(asdict(turns)))


def _read(text: str) -> Turns:
    """What a file has; nothing, if it is new, was cut, or is of an older version."""
    try:
        content = json.loads(text)
        waiting = {who: Waiting(**each) for who, each in content["waiting"].items()}
        return Turns(content["latest"], waiting, content["refused"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return Turns()
