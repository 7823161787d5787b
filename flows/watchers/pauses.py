"""Makes pauses of jobs last until somebody resumes them."""

from flows.engine.client import Engine
from flows.engine.pauses import suspend
from flows.watchers.watcher import Watcher


class Pauses(Watcher):
    """Watches the paused jobs of one resource.

    The Prefect UI limits a pause, by default to five minutes. Then the flow run fails, even if its
    workflow task is still running.
    """

    seconds = 5.0

    def __init__(self, engine: Engine, pool: str) -> None:
        self._engine = engine
        self._pool = pool

    async def look(self) -> None:
        for flow_run in await self._engine.paused_jobs(self._pool):
            if flow_run.state and flow_run.state.state_details.pause_timeout is not None:
                message = flow_run.state.message or "Suspended until it is resumed."
                await suspend(self._engine, flow_run.id, message, force=True)
