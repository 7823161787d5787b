"""The list of all watchers that a worker runs for its resource."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine
from flows.watchers.activities import InterruptedActivities
from flows.watchers.cluster_folders import ClusterFolders
from flows.watchers.events import EventSender
from flows.watchers.jobs import Reconciler
from flows.watchers.pauses import Pauses
from flows.watchers.runs_without_job import JoblessRuns
from flows.watchers.schedules import ScheduleKeeper
from flows.watchers.watcher import Watcher
from fractal_models.settings import Settings


def watchers_of(
    sessions: async_sessionmaker[AsyncSession],
    engine: Engine,
    settings: Settings,
    pool: str,
    reconciler: Reconciler,
) -> list[Watcher]:
    """The watchers for the resource of this work pool, including the given reconciler."""
    return [
        reconciler,
        InterruptedActivities(sessions, engine, pool, max_restarts=settings.max_restarts),
        EventSender(sessions, engine),
        ScheduleKeeper(sessions, engine, pool),
        JoblessRuns(sessions, engine, settings, reconciler, pool),
        Pauses(engine, pool),
        ClusterFolders(sessions, timedelta(days=settings.failed_folder_days), pool),
    ]
