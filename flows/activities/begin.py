"""Begin activities: each is recorded here, then done by a flow run of Prefect."""

from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities.activity import OPEN
from flows.activities.commands import interpreter_of
from flows.activities.new_groups import require_new
from flows.activities.pixi_commands import pixi_version_of
from flows.activities.site import open_site
from flows.engine.client import Engine, EngineUnavailableError, UnpublishedError
from flows.engine.wait_reasons import PREFECT_AWAY
from flows.process.transport import CommandError, TransportError
from flows.process.wakeups import wake_workers
from fractal_models.database import release, saved_id
from fractal_models.errors import NotFoundError, ProfileError, RefusedError, UnavailableError
from fractal_models.schemas.task import ActivityAction, TaskGroupActivityRead
from fractal_models.tables import (
    JobV2,
    Resource,
    TaskGroupActivityV2,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowTaskV2,
)
from fractal_models.tables.columns import now

ReadArchive = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The activities that a user can begin on task groups.

    Each method commits an activity and returns it; a flow run then does the work.

    Raises:
        RefusedError: the activity is not possible now.
        UnavailableError: Prefect does not answer, and nothing was changed.
    """

    session: AsyncSession
    engine: Engine
    user: UserOAuth

    async def collect(
        self, group: TaskGroupV2, read_archive: ReadArchive | None, **parameters: Any
    ) -> TaskGroupActivityRead:
        """Record a new task group, and begin to install it; from an archive, if one is given."""
        await require_new(self.session, group)
        self.session.add(group)
        await self.session.flush()
        activity = _new_activity(group, saved_id(self.user), "collect")
        self.session.add(activity)
        await self.session.commit()
        if read_archive is not None:
            await self._store(group, activity, read_archive)
        try:
            return await self._submit(group, activity, parameters)
        except EngineUnavailableError as error:
            await self._forget(group, activity)
            raise UnavailableError(
                f"{_why(error)} Tasks cannot be collected now, and nothing was recorded."
            ) from error

    async def deactivate(self, group: TaskGroupV2) -> TaskGroupActivityRead:
        """Close a task group for new jobs, and begin to remove its environment."""
        lost_archive = await _has_lost_archive(self.session, group)
        await _require_idle(self.session, group)
        if not group.active:
            raise RefusedError(f"Task group {group.id} is inactive already.")
        await _require_no_job(self.session, group)
        await _require_repeatable(self.session, group, lost_archive=lost_archive)
        return await self._begin(group, "deactivate")

    async def reactivate(self, group: TaskGroupV2) -> TaskGroupActivityRead:
        """Begin to make the environment of a task group again; after that, jobs may use it."""
        lost_archive = await _has_lost_archive(self.session, group)
        await _require_idle(self.session, group)
        if group.active:
            raise RefusedError(f"Task group {group.id} is active already.")
        await _require_repeatable(self.session, group, lost_archive=lost_archive)
        return await self._begin(group, "reactivate")

    async def delete(self, group: TaskGroupV2) -> TaskGroupActivityRead:
        """Begin to delete an unused task group, with its environment. The activity's row stays."""
        await _require_idle(self.session, group)
        await _require_no_job(self.session, group)
        await _require_unused(self.session, group)
        return await self._begin(group, "delete")

    async def reset(
        self,
        group: TaskGroupV2,
        origins: Container[str],
        python_version: str | None = None,
        **parameters: Any,
    ) -> TaskGroupActivityRead:
        """Begin to install an inactive task group anew, and to activate it.

        Raises:
            RefusedError: also if the group's origin is not one of `origins`.
        """
        lost_archive = await _has_lost_archive(self.session, group)
        await _require_idle(self.session, group)
        if group.origin not in origins:
            raise RefusedError(
                f"Task group {group.id} is of origin {group.origin!r}, which cannot be reset in "
                "this way."
            )
        if group.active:
            raise RefusedError(f"Task group {group.id} is active: deactivate it first.")
        python_version = python_version or group.python_version
        await _require_installable(self.session, group, python_version, lost_archive=lost_archive)
        return await self._begin(group, "reset", **parameters)

    async def _begin(
        self, group: TaskGroupV2, action: ActivityAction, **parameters: Any
    ) -> TaskGroupActivityRead:
        """Commit an activity and make its flow run.

        From then on, no new job may use a group that is to be deactivated or deleted. If the
        group's environment was not made by the platform, no flow run is needed, and the activity
        ends at once.
        """
        activity = _new_activity(group, saved_id(self.user), action)
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
        await wake_workers(self.session)
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
        self, group: TaskGroupV2, activity: TaskGroupActivityV2, read_archive: ReadArchive
    ) -> None:
        """Write an archive to the place from which it will be installed."""
        path = str(group.archive_path)
        try:
            async with open_site(self.session, group) as site:
                await release(self.session)
                await site.write(path, await read_archive())
        except CommandError as error:
            await self._forget(group, activity)
            raise RefusedError(f"The file cannot be stored at {path}: {error}") from error
        except Exception:
            await self._forget(group, activity)
            raise

    async def _forget(self, group: TaskGroupV2, activity: TaskGroupActivityV2) -> None:
        """Delete a collection that cannot begin. An archive that cannot be removed stays."""
        if group.archive_path is not None:
            with suppress(TransportError, CommandError, ProfileError):
                async with open_site(self.session, group) as site:
                    await release(self.session)
                    await site.remove(str(group.path))
        await self.session.delete(activity)
        await self.session.delete(group)
        await self.session.commit()


def _why(error: EngineUnavailableError) -> str:
    return str(error) if isinstance(error, UnpublishedError) else PREFECT_AWAY


def _new_activity(group: TaskGroupV2, user_id: int, action: ActivityAction) -> TaskGroupActivityV2:
    """A pending activity, not added to the session."""
    return TaskGroupActivityV2(
        user_id=user_id,
        taskgroupv2_id=group.id,
        pkg_name=group.pkg_name,
        version=str(group.version),
        status="pending",
        action=action,
    )


async def _require_idle(session: AsyncSession, group: TaskGroupV2) -> None:
    """Lock a task group until the transaction ends, if it has no open activity.

    Raises:
        NotFoundError: the task group has been deleted meanwhile.
        RefusedError: it has an activity that has not ended.
    """
    locked = await session.get(TaskGroupV2, group.id, with_for_update=True, populate_existing=True)
    if locked is None:
        raise NotFoundError("Task group", group.id)
    found = await session.exec(
        select(TaskGroupActivityV2).where(
            TaskGroupActivityV2.taskgroupv2_id == group.id,
            col(TaskGroupActivityV2.status).in_(OPEN),
        )
    )
    if (activity := found.first()) is not None:
        raise RefusedError(
            f"Activity {activity.id} ({activity.action}) of task group {group.id} has not ended: "
            "wait for its end."
        )


async def _has_lost_archive(session: AsyncSession, group: TaskGroupV2) -> bool:
    """Whether the archive from which a task group was installed is gone; this can take long.

    It is checked before the group is locked, and without holding a connection to the database.
    """
    if group.archive_path is None:
        return False
    async with open_site(session, group) as site:
        await release(session)
        return group.archive_path not in await site.existing([group.archive_path])


async def _require_repeatable(
    session: AsyncSession, group: TaskGroupV2, *, lost_archive: bool
) -> None:
    """Check that the environment can be made again, before it is removed or made again.

    Raises:
        PackageError, RefusedError: something that this needs is missing.
    """
    if group.origin == "other":
        return  # it is not the platform's, and stays
    if group.env_info is None:
        raise RefusedError(
            f"Which versions were installed for task group {group.id} was never recorded, so its "
            "environment could not be made again: collect its package anew."
        )
    await _require_installable(session, group, group.python_version, lost_archive=lost_archive)


async def _require_installable(
    session: AsyncSession,
    group: TaskGroupV2,
    python_version: str | None,
    *,
    lost_archive: bool,
) -> None:
    """Check that the interpreter or pixi, and the archive of a task group still exist.

    Raises:
        PackageError, RefusedError: something is missing.
    """
    resource = await session.get_one(Resource, group.resource_id)
    if group.origin == "pixi":
        pixi_version_of(resource, group.pixi_version)
    else:
        interpreter_of(resource, python_version)
    if lost_archive:
        raise RefusedError(
            f"{group.archive_path} is gone, without which the environment of task group {group.id} "
            "cannot be made again: put it back, or collect it anew."
        )


async def _require_no_job(session: AsyncSession, group: TaskGroupV2) -> None:
    """Check that no open job needs the environment.

    Raises:
        RefusedError: a job that has not ended runs tasks of the group.
    """
    tasks = {"task_list": [{"task": {"taskgroupv2_id": group.id}}]}
    found = await session.exec(
        select(JobV2.id).where(
            JobV2.status == "submitted", col(JobV2.workflow_dump).contains(tasks)
        )
    )
    if (job_id := found.first()) is not None:
        raise RefusedError(
            f"Job {job_id} uses task group {group.id}: wait for its end, or stop it."
        )


async def _require_unused(session: AsyncSession, group: TaskGroupV2) -> None:
    """Check that no workflow uses the tasks of a task group.

    Raises:
        RefusedError: workflows use tasks of the group.
    """
    found = await session.exec(
        select(func.count(func.distinct(WorkflowTaskV2.workflow_id)))
        .join(TaskV2, col(TaskV2.id) == col(WorkflowTaskV2.task_id))
        .where(TaskV2.taskgroupv2_id == group.id)
    )
    if count := found.one():
        raise RefusedError(
            f"Tasks of task group {group.id} are used in {count} workflows: remove or replace them "
            "there first."
        )
