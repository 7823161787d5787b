"""The tasks that an imported workflow names."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlmodel import col, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from api.errors import ErrorWithData
from api.queries.task_groups import comparable, visible_to
from fractal_models.schemas.workflow_import import TaskImport
from fractal_models.tables import (
    LinkUserGroup,
    ProjectV2,
    TaskGroupV2,
    TaskV2,
    UserGroup,
    UserOAuth,
)


class _Version(NamedTuple):
    task_id: int
    active: bool
    is_core: bool


_Versions = dict[str, _Version]


async def named_tasks(
    session: AsyncSession,
    user: UserOAuth,
    project: ProjectV2,
    default_group: str,
    wanted: Sequence[TaskImport],
) -> list[TaskV2]:
    """The task that each name stands for, among those that the user sees.

    Raises:
        ErrorWithData: 422, some are not there; the data says which, and in which other versions.
    """
    known = await _versions(session, user, project, default_group, wanted)
    found = [known.get((task.pkg_name, task.name), {}) for task in wanted]
    if not all(task.version in versions for task, versions in zip(wanted, found, strict=True)):
        raise ErrorWithData(
            [_outcome(task, versions) for task, versions in zip(wanted, found, strict=True)]
        )
    ids = [
        versions[str(task.version)].task_id for task, versions in zip(wanted, found, strict=True)
    ]
    rows = await session.execute(select(TaskV2).where(col(TaskV2.id).in_(ids)))
    tasks = {task.id: task for task in rows.scalars()}
    return [tasks[task_id] for task_id in ids]


async def _versions(
    session: AsyncSession,
    user: UserOAuth,
    project: ProjectV2,
    default_group: str,
    wanted: Sequence[TaskImport],
) -> dict[tuple[str, str], _Versions]:
    """By package and name, the versions of tasks that the user sees on the project's resource.

    Of several with the same version, active ones go first; then the user's own, those of the
    default group, and those of the group that they have been in for longest.
    """
    names = {(task.pkg_name, task.name) for task in wanted}
    everybody = (
        select(col(UserGroup.id)).where(col(UserGroup.name) == default_group).scalar_subquery()
    )
    rows = await session.execute(
        select(
            col(TaskGroupV2.pkg_name),
            col(TaskV2.name),
            col(TaskGroupV2.version),
            col(TaskV2.id),
            col(TaskGroupV2.active),
            col(TaskV2.is_core),
        )
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .outerjoin(
            LinkUserGroup,
            (col(LinkUserGroup.group_id) == col(TaskGroupV2.user_group_id))
            & (col(LinkUserGroup.user_id) == user.id),
        )
        .where(
            tuple_(col(TaskGroupV2.pkg_name), col(TaskV2.name)).in_(names),
            visible_to(user),
            col(TaskGroupV2.resource_id) == project.resource_id,
        )
        .order_by(
            col(TaskGroupV2.active).desc(),
            (col(TaskGroupV2.user_id) == user.id).desc(),
            col(TaskGroupV2.user_group_id).is_not_distinct_from(everybody.scalar_subquery()).desc(),
            col(LinkUserGroup.timestamp_created),
            col(TaskV2.id).desc(),
        )
    )
    known: dict[tuple[str, str], _Versions] = {}
    for pkg_name, name, version, *task in rows:
        known.setdefault((pkg_name, name), {}).setdefault(str(version), _Version(*task))
    return known


def _outcome(task: TaskImport, versions: _Versions) -> dict[str, Any]:
    """What became of a name, as clients expect it."""
    asked = {"pkg_name": task.pkg_name, "version": task.version, "task_name": task.name}
    if task.version in versions:
        return {"outcome": "success", **asked, "task_id": versions[task.version].task_id}
    available = [
        {
            "version": version,
            "older_than_target": task.version is not None
            and comparable(version) < comparable(task.version),
            "active": found.active,
            "is_core": found.is_core,
        }
        for version, found in versions.items()
    ]
    available.sort(key=lambda each: comparable(str(each["version"])), reverse=True)
    return {"outcome": "fail", **asked, "available_tasks": available}
