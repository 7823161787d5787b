"""Removes the folders that ended jobs have left on a cluster."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from sqlalchemy import or_
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import and_, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.launchers.choice import transport_of
from flows.launchers.slurm.kept_folders import KeptFolders, folder_sizes, remove_folders
from flows.process.transport import CommandError, Transport, TransportError
from flows.watchers.watcher import Watcher
from fractal_models.database import release, saved_id
from fractal_models.tables import JobV2, Profile, Resource, UserOAuth
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 600.0


@dataclass(frozen=True)
class DueFolders:
    """Folders on a cluster that nobody needs any more, of jobs whose owners have one profile."""

    resource: Resource
    profile: Profile
    jobs: dict[PurePosixPath, int]

    async def sizes(self) -> dict[PurePosixPath, int]:
        """How many bytes each has that is there.

        Raises:
            TransportError, CommandError: the cluster does not answer.
        """
        async with self._reached() as transport:
            return await folder_sizes(transport, self._python, self.jobs)

    async def remove(self) -> Set[PurePosixPath]:
        """Remove them. Returns those that are left, as something in them cannot be removed.

        Raises:
            TransportError, CommandError: the cluster does not answer.
        """
        async with self._reached() as transport:
            gone = await remove_folders(transport, self._python, self.jobs)
        kept = KeptFolders(self.resource.jobs_local_dir)
        await asyncio.to_thread(kept.forget, [self.jobs[each] for each in self.jobs.keys() & gone])
        return self.jobs.keys() - gone

    @property
    def _python(self) -> str:
        return str(self.resource.jobs_slurm_python_worker)

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[Transport]:
        transport = transport_of(self.resource, self.profile)
        try:
            yield transport
        finally:
            await transport.close()


class ClusterFolders(Watcher):
    """The folders of a resource's jobs on its cluster: of jobs that are done they are removed at
    once, of those that failed after some time, in which people may want to look into them."""

    seconds = 10.0

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], keep: timedelta, pool: str
    ) -> None:
        self._sessions = sessions
        self._keep = keep
        self._pool = pool
        self._again_at: dict[int, float] = {}  # by profile, after a failure

    async def look(self) -> None:
        """Remove what is due."""
        for due in await self.due():
            if time.monotonic() >= self._again_at.get(saved_id(due.profile), 0.0):
                await self._remove(due)

    async def due(self) -> list[DueFolders]:
        """The folders of jobs that need these no more, by the profiles of their owners.

        A job whose owner has no profile any more waits for one.
        """
        async with self._sessions() as session:
            found = await session.exec(select(Resource).where(Resource.work_pool == self._pool))
            resource = found.first()
            if resource is None or resource.type == "local":
                return []
            kept = KeptFolders(resource.jobs_local_dir)
            ids = await asyncio.to_thread(kept.job_ids)
            if not ids:
                return []
            known = set(await session.exec(select(JobV2.id).where(col(JobV2.id).in_(ids))))
            due = await self._due(session, resource, ids)
            await release(session)
        await asyncio.to_thread(kept.forget, ids - known)
        return due

    async def _due(
        self, session: AsyncSession, resource: Resource, ids: set[int]
    ) -> list[DueFolders]:
        found = await session.execute(
            select(JobV2.id, JobV2.working_dir_user, Profile)
            .join(UserOAuth, col(UserOAuth.email) == col(JobV2.user_email))
            .join(Profile, col(Profile.id) == col(UserOAuth.profile_id))
            .where(
                col(JobV2.id).in_(ids),
                col(JobV2.working_dir_user).is_not(None),
                or_(
                    col(JobV2.status) == "done",
                    and_(
                        col(JobV2.status) == "failed",
                        col(JobV2.end_timestamp) < now() - self._keep,
                    ),
                ),
            )
        )
        due: dict[int, DueFolders] = {}
        for job_id, folder, profile in found:
            of_profile = due.setdefault(saved_id(profile), DueFolders(resource, profile, {}))
            of_profile.jobs[PurePosixPath(folder)] = job_id
        return list(due.values())

    async def _remove(self, due: DueFolders) -> None:
        left: Set[PurePosixPath] = due.jobs.keys()
        why = "something in them cannot be removed"
        try:
            left = await due.remove()
        except (TransportError, CommandError) as error:
            why = str(error)
        if left:
            self._again_at[saved_id(due.profile)] = time.monotonic() + _AGAIN_SECONDS
            told = sorted(map(str, left))[:10]
            logger.warning("Folders of ended jobs are left on the cluster: %s: %s", told, why)
