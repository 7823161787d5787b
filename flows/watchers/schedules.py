"""Pauses or deletes schedules that have lost something that they need.

Every worker of a resource does this. It calls Prefect only if there is something to change.
"""

import logging

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.engine.client import Engine, EngineRefusedError
from flows.schedules import rows
from flows.schedules.deployments import ScheduleDeployments
from flows.watchers.watcher import Watcher, refused
from fractal_models.database import release
from fractal_models.tables import Schedule

logger = logging.getLogger(__name__)


class ScheduleKeeper(Watcher):
    """Pauses schedules that have lost something they need, and deletes those without project."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], engine: Engine, pool: str
    ) -> None:
        self._sessions = sessions
        self._deployments = ScheduleDeployments(engine)
        self._pool = pool
        self._renewed = False

    async def look(self) -> None:
        """Check all schedules once; the first time, also update deployments of older versions."""
        async with self._sessions() as session:
            if not self._renewed:
                ids = await rows.deployments_of(session, self._pool)
                await release(session)
                await self._deployments.renew(ids)
                self._renewed = True
            await rows.note_losses(session, self._pool)
            for schedule in await rows.untold(session, self._pool):
                await release(session)
                try:
                    await self._tell(session, schedule)
                except EngineRefusedError as error:
                    refused(f"Schedule {schedule.id} ({schedule.deployment_name})", error)
            for schedule in await rows.abandoned(session):
                await release(session)
                await self._clear_away(session, schedule)

    async def _tell(self, session: AsyncSession, schedule: Schedule) -> None:
        """Show the schedule's notice in Prefect, and pause the schedule if it has a notice."""
        if schedule.deployment_id is not None:
            await self._deployments.tell(schedule.deployment_id, schedule.notice)
        await rows.told(session, schedule)
        if schedule.notice is not None:
            name = schedule.deployment_name
            logger.warning("Schedule %s (%s) is paused. %s", schedule.id, name, schedule.notice)

    async def _clear_away(self, session: AsyncSession, schedule: Schedule) -> None:
        """Delete a schedule, in Prefect first."""
        if schedule.deployment_id is not None:
            await self._deployments.delete(schedule.deployment_id)
        else:
            await self._deployments.delete_named(schedule.deployment_name)
        await rows.forget(session, schedule)
        name = schedule.deployment_name
        logger.warning("Schedule %s (%s) is deleted: it has no project.", schedule.id, name)
