"""Makes pauses of jobs last until somebody resumes them."""

from flows.engine.client import Engine
from flows.engine.pauses import prolong_pauses
from flows.watchers.watcher import Watcher


class Pauses(Watcher):
    """Watches the paused jobs of one resource."""

    seconds = 5.0

    def __init__(self, engine: Engine, pool: str) -> None:
        self._engine = engine
        self._pool = pool

    async def look(self) -> None:
        await prolong_pauses(self._engine, self._pool)
