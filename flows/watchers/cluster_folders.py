"""Removes the folders that ended jobs have left on a cluster."""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import PurePosixPath

from sqlalchemy import or_
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import and_, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.launchers.choice import transport_of
from flows.launchers.slurm.kept_folders import KeptFolders, remove_folders
from flows.process.transport import CommandError, TransportError
from flows.watchers.watcher import Watcher
from fractal_models.database import release, saved_id
from fractal_models.settings import Settings
from fractal_models.tables import JobV2, Profile, Resource, UserOAuth
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 600.0


class ClusterFolders(Watcher):
    """The folders of a resource's jobs on its cluster: of jobs that are done they are removed at
    once, of those that failed after some days, in which people may want to look into them."""

    seconds = 10.0

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], settings: Settings, pool: str
    ) -> None:
        self._sessions = sessions
        self._keep = timedelta(days=settings.failed_folder_days)
        self._pool = pool
        self._again_at: dict[int, float] = {}  # by profile, after a failure

    async def look(self) -> None:
        """Remove what is due."""
        async with self._sessions() as session:
            found = await session.exec(select(Resource).where(Resource.work_pool == self._pool))
            resource = found.first()
            if resource is None or resource.type == "local":
                return
            kept = KeptFolders(resource.jobs_local_dir)
            ids = await asyncio.to_thread(kept.job_ids)
            if not ids:
                return
            known = set(await session.exec(select(JobV2.id).where(col(JobV2.id).in_(ids))))
            due = await self._due(session, ids)
            await release(session)
        await asyncio.to_thread(kept.forget, ids - known)
        profiles = {saved_id(profile): profile for _, _, profile in due}
        for profile_id, profile in profiles.items():
            if time.monotonic() >= self._again_at.get(profile_id, 0.0):
                jobs = {PurePosixPath(folder): job for job, folder, of in due if of is profile}
                await self._remove(kept, resource, profile, jobs)

    async def _due(
        self, session: AsyncSession, ids: set[int]
    ) -> Sequence[tuple[int, str, Profile]]:
        """The jobs, with their folders and the profiles of their owners, that need these no more.

        A job whose owner has no profile any more waits for one.
        """
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
        return [(job_id, folder, profile) for job_id, folder, profile in found]

    async def _remove(
        self,
        kept: KeptFolders,
        resource: Resource,
        profile: Profile,
        jobs: dict[PurePosixPath, int],
    ) -> None:
        """Remove the folders of jobs whose owners have the same profile."""
        transport = transport_of(resource, profile)
        python = str(resource.jobs_slurm_python_worker)
        gone: set[PurePosixPath] = set()
        why = "something in them cannot be removed"
        try:
            gone = await remove_folders(transport, python, jobs)
        except (TransportError, CommandError) as error:
            why = str(error)
        finally:
            await transport.close()
        await asyncio.to_thread(kept.forget, [jobs[folder] for folder in jobs if folder in gone])
        if left := sorted(map(str, jobs.keys() - gone)):
            self._again_at[saved_id(profile)] = time.monotonic() + _AGAIN_SECONDS
            logger.warning("Folders of ended jobs are left on the cluster: %s: %s", left[:10], why)
