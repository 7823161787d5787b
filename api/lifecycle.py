"""The life of task groups: each step is recorded here, then done by a flow run of Prefect."""

from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import UploadFile
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries.activities import (
    has_lost_archive,
    new_activity,
    require_idle,
    require_installable,
    require_repeatable,
)
from api.queries.jobs import require_no_submitted_job_with
from api.queries.task_groups import require_new, require_unused
from flows.activities.site import open_site
from flows.engine.client import Engine, EngineUnavailableError, UnpublishedError
from flows.engine.wait_reasons import PREFECT_AWAY
from flows.process.transport import CommandError, TransportError
from fractal_models.database import release, saved_id
from fractal_models.errors import ProfileError, RefusedError, UnavailableError
from fractal_models.schemas.task import ActivityAction, TaskGroupActivityRead
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2, UserOAuth
from fractal_models.tables.columns import now


def _why(error: EngineUnavailableError) -> str:
    return str(error) if isinstance(error, UnpublishedError) else PREFECT_AWAY


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What a user has done to task groups.

    Each step commits an activity, which tells how it goes.

    Raises:
        RefusedError: the step is not possible now.
        UnavailableError: Prefect does not answer, and nothing was changed.
    """

    session: AsyncSession
    engine: Engine
    user: UserOAuth

    async def collect(
        self, group: TaskGroupV2, archive: UploadFile | None, **parameters: Any
    ) -> TaskGroupActivityRead:
        """Make a new task group, and install it; from an archive, if that is given."""
        await require_new(self.session, group)
        self.session.add(group)
        await self.session.flush()
        activity = new_activity(group, saved_id(self.user), "collect")
        self.session.add(activity)
        await self.session.commit()
        if archive is not None:
            await self._store(group, activity, archive)
        try:
            return await self._submit(group, activity, parameters)
        except EngineUnavailableError as error:
            await self._forget(group, activity)
            raise UnavailableError(
                f"{_why(error)} Tasks cannot be collected now, and nothing was recorded."
            ) from error

    async def deactivate(self, group: TaskGroupV2) -> TaskGroupActivityRead:
        """Let no new job use a task group, and remove its environment."""
        lost_archive = await has_lost_archive(self.session, group)
        await require_idle(self.session, group)
        if not group.active:
            raise RefusedError(f"Task group {group.id} is inactive already.")
        await require_no_submitted_job_with(self.session, group)
        await require_repeatable(self.session, group, lost_archive=lost_archive)
        return await self._begin(group, "deactivate")

    async def reactivate(self, group: TaskGroupV2) -> TaskGroupActivityRead:
        """Make the environment of a task group again, then let jobs use it."""
        lost_archive = await has_lost_archive(self.session, group)
        await require_idle(self.session, group)
        if group.active:
            raise RefusedError(f"Task group {group.id} is active already.")
        await require_repeatable(self.session, group, lost_archive=lost_archive)
        return await self._begin(group, "reactivate")

    async def delete(self, group: TaskGroupV2) -> TaskGroupActivityRead:
        """Delete a task group that nothing uses, with its environment."""
        await require_idle(self.session, group)
        await require_no_submitted_job_with(self.session, group)
        await require_unused(self.session, group)
        return await self._begin(group, "delete")

    async def reset(
        self,
        group: TaskGroupV2,
        origins: Container[str],
        python_version: str | None = None,
        **parameters: Any,
    ) -> TaskGroupActivityRead:
        """Install an inactive task group of one of these origins anew, and activate it."""
        lost_archive = await has_lost_archive(self.session, group)
        await require_idle(self.session, group)
        if group.origin not in origins:
            raise RefusedError(
                f"Task group {group.id} is of origin {group.origin!r}, which cannot be reset in "
                "this way."
            )
        if group.active:
            raise RefusedError(f"Task group {group.id} is active: deactivate it first.")
        python_version = python_version or group.python_version
        await require_installable(self.session, group, python_version, lost_archive=lost_archive)
        return await self._begin(group, "reset", **parameters)

    async def _begin(
        self, group: TaskGroupV2, action: ActivityAction, **parameters: Any
    ) -> TaskGroupActivityRead:
        """From now on no new job may use a group that is to be deactivated or deleted.

        One whose environment is not made by the platform needs no flow run.
        """
        activity = new_activity(group, saved_id(self.user), action)
        self.session.add(activity)
        if group.origin == "other":
            return await self._end_at_once(group, activity)
        was_active = group.active
        group.active = was_active and action not in ("deactivate", "delete")
        await self.session.commit()
        try:
            return await self._submit(group, activity, parameters)
        except EngineUnavailableError as error:
            group.active = was_active
            await self.session.delete(activity)
            await self.session.commit()
            raise UnavailableError(
                f"{_why(error)} Task group {group.id} stays as it is."
            ) from error

    async def _submit(
        self, group: TaskGroupV2, activity: TaskGroupActivityV2, parameters: dict[str, Any]
    ) -> TaskGroupActivityRead:
        resource = await self.session.get_one(Resource, group.resource_id)
        await release(self.session)
        activity.flow_run_id = await self.engine.submit_activity(activity, resource, **parameters)
        await self.session.commit()
        return TaskGroupActivityRead.model_validate(activity)

    async def _end_at_once(
        self, group: TaskGroupV2, activity: TaskGroupActivityV2
    ) -> TaskGroupActivityRead:
        activity.status, activity.timestamp_ended = "OK", now()
        activity.log = "Its environment is not made by the platform, and stays as it is."
        group.active = activity.action == "reactivate"
        if activity.action == "delete":
            activity.taskgroupv2_id = None
            await self.session.delete(group)
        await self.session.commit()
        return TaskGroupActivityRead.model_validate(activity)

    async def _store(
        self, group: TaskGroupV2, activity: TaskGroupActivityV2, archive: UploadFile
    ) -> None:
        """Write an archive to where it will be installed."""
        path = str(group.archive_path)
        try:
            async with open_site(self.session, group) as site:
                await release(self.session)
                await site.write(path, await archive.read())
        except CommandError as error:
            await self._forget(group, activity)
            raise RefusedError(f"The file cannot be stored at {path}: {error}") from error
        except Exception:
            await self._forget(group, activity)
            raise

    async def _forget(self, group: TaskGroupV2, activity: TaskGroupActivityV2) -> None:
        """Take a collection back that does not begin. A file that cannot be removed stays."""
        if group.archive_path is not None:
            with suppress(TransportError, CommandError, ProfileError):
                async with open_site(self.session, group) as site:
                    await release(self.session)
                    await site.remove(str(group.path))
        await self.session.delete(activity)
        await self.session.delete(group)
        await self.session.commit()
