"""How activities of task groups begin: recorded here, then done by a flow run of Prefect."""

from typing import Any

from fastapi import UploadFile
from sqlmodel.ext.asyncio.session import AsyncSession

from api.errors import unavailable, unprocessable
from api.queries.activities import new_activity
from api.queries.task_groups import require_new
from flows.activities.site import open_site
from flows.engine import Engine, EngineUnavailableError
from flows.launchers.transport import CommandError
from fractal_models.database import saved_id
from fractal_models.schemas.task import ActivityAction, TaskGroupActivityRead
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2, UserOAuth
from fractal_models.tables.columns import now

_AWAY = "Prefect, the workflow engine, does not answer, so"


async def begin_collection(
    session: AsyncSession,
    engine: Engine,
    group: TaskGroupV2,
    resource: Resource,
    archive: UploadFile | None,
    **parameters: Any,
) -> TaskGroupActivityRead:
    """Commit a new task group, its archive and the activity that installs it."""
    await require_new(session, group)
    session.add(group)
    await session.flush()
    activity = new_activity(group, group.user_id, "collect")
    session.add(activity)
    if archive is not None:
        await _store(session, group, archive)
    await session.commit()
    try:
        activity.flow_run_id = await engine.submit_activity(activity, resource.name, **parameters)
    except EngineUnavailableError as error:
        await _undo_collection(session, group, activity)
        raise unavailable(
            f"{_AWAY} tasks cannot be collected now. Nothing was recorded: try again later."
        ) from error
    await session.commit()
    return TaskGroupActivityRead.model_validate(activity)


async def begin(
    session: AsyncSession,
    engine: Engine,
    group: TaskGroupV2,
    user: UserOAuth,
    action: ActivityAction,
    **parameters: Any,
) -> TaskGroupActivityRead:
    """Commit an activity of a group that is there, and have Prefect do it.

    From now on no new job may use a group that is to be deactivated or deleted. One whose
    environment is not made by the platform needs no flow run.
    """
    activity = new_activity(group, saved_id(user), action)
    session.add(activity)
    if group.origin == "other":
        return await _end_at_once(session, group, activity)
    was_active = group.active
    group.active = was_active and action not in ("deactivate", "delete")
    await session.commit()
    resource = await session.get_one(Resource, group.resource_id)
    try:
        activity.flow_run_id = await engine.submit_activity(activity, resource.name, **parameters)
    except EngineUnavailableError as error:
        group.active = was_active
        await session.delete(activity)
        await session.commit()
        raise unavailable(
            f"{_AWAY} task group {group.id} stays as it is: try again later."
        ) from error
    await session.commit()
    return TaskGroupActivityRead.model_validate(activity)


async def _end_at_once(
    session: AsyncSession, group: TaskGroupV2, activity: TaskGroupActivityV2
) -> TaskGroupActivityRead:
    activity.status, activity.timestamp_ended = "OK", now()
    activity.log = "Its environment is not made by the platform, and stays as it is."
    group.active = activity.action == "reactivate"
    if activity.action == "delete":
        activity.taskgroupv2_id = None
        await session.delete(group)
    await session.commit()
    return TaskGroupActivityRead.model_validate(activity)


async def _store(session: AsyncSession, group: TaskGroupV2, archive: UploadFile) -> None:
    """Write an archive to where it will be installed."""
    path = str(group.archive_path)
    async with open_site(session, group) as site:
        try:
            await site.write(path, await archive.read())
        except CommandError as error:
            raise unprocessable(f"The file cannot be stored at {path}: {error}") from error


async def _undo_collection(
    session: AsyncSession, group: TaskGroupV2, activity: TaskGroupActivityV2
) -> None:
    if group.archive_path is not None:
        async with open_site(session, group) as site:
            await site.remove(str(group.path))
    await session.delete(activity)
    await session.delete(group)
    await session.commit()
