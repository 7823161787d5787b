"""Runs the workers of all resources, a process for each, also for resources that are made later.

This process does not import Prefect, so little can go wrong in it.
"""

import asyncio
import os
from collections.abc import Callable, Iterable

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments import fork_server
from deployments.services import Part, Service, python_module
from deployments.supervision import Supervisor
from fractal_models.database import open_database
from fractal_models.tables import Resource
from fractal_models.variables import SECRETS

_LOOK_SECONDS = 1.0

Tell = Callable[[str], object]


class Workers:
    """The worker processes by work pool, because resources can be renamed and work pools cannot."""

    def __init__(self, make: Callable[[str], Part], tell: Tell) -> None:
        self._make = make
        self._tell = tell
        self._supervisor = Supervisor(lambda part: part.start())
        self._parts: dict[str, Part] = {}

    def follow(self, pools: Iterable[str]) -> None:
        """Start a worker for each new one of these work pools, and restart those that have ended.

        The worker of a deleted resource ends by itself.
        """
        wanted = set(pools)
        for pool in sorted(wanted - self._parts.keys()):
            self._parts[pool] = part = self._make(pool)
            part.start()
            self._tell(f"The worker of work pool {pool!r} is started.")
        for pool in self._parts.keys() - wanted:
            if self._parts[pool].ended() is not None:
                del self._parts[pool]
        for line in self._supervisor.look(self._parts[pool] for pool in sorted(wanted)):
            self._tell(line)

    async def stop(self) -> None:
        """End all workers at the same time."""
        await asyncio.gather(*(asyncio.to_thread(part.stop) for part in self._parts.values()))


async def serve_all(database: URL, tell: Tell) -> None:
    """Run a worker for every resource, until cancelled. The database may be away for a while."""
    workers = Workers(_worker, tell)
    pools: list[str] = []
    try:
        async with open_database(database) as sessions:
            while True:
                pools = await _pools(sessions, pools)
                workers.follow(pools)
                await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await workers.stop()


async def _pools(sessions: async_sessionmaker[AsyncSession], known: list[str]) -> list[str]:
    """The work pools of all resources; while the database is away, those in `known`."""
    try:
        async with sessions() as session:
            return list(await session.exec(select(Resource.work_pool).order_by(col(Resource.id))))
    except (SQLAlchemyError, OSError):
        return known


def _worker(pool: str) -> Service:
    command = python_module("deployments.cli", "worker", f"--work-pool={pool}", "--leash")
    needed = {name: os.environ[name] for name in SECRETS if name in os.environ}
    name, forks = f"worker {pool}", fork_server.inherited
    return Service(name, command, needed, leash=True, fork_server=forks)
