"""Tasks by package, name and version: which there are, which is newer, which a user prefers."""

from collections.abc import Iterable, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version
from sqlalchemy import ColumnElement, Row, select
from sqlmodel import col, or_, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.rights import visible_to
from fractal_models.schemas.workflow import TaskVersionRead
from fractal_models.tables import (
    LinkUserGroup,
    ProjectV2,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowV2,
)
from fractal_models.workflow_tasks import may_replace

TaskName = tuple[str, str]  # of its package, and its own
Versions = Mapping[str, Row[Any]]

_HAS_SCHEMA = or_(
    col(TaskV2.args_schema_parallel).is_not(None), col(TaskV2.args_schema_non_parallel).is_not(None)
)
_COLUMNS = [
    *map(col, (TaskGroupV2.pkg_name, TaskV2.name, TaskGroupV2.version, TaskV2.id, TaskV2.type)),
    *map(col, (TaskGroupV2.active, TaskV2.is_core)),
    _HAS_SCHEMA.label("has_schema"),
]


async def versions_of(
    session: AsyncSession, user: UserOAuth, project: ProjectV2, names: Iterable[TaskName]
) -> Mapping[TaskName, Versions]:
    """By name, the versions of tasks that the user sees on the project's resource.

    Of several with the same version, active ones go first, and else those that the user prefers.
    """
    found = await session.execute(
        select(*_COLUMNS)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .outerjoin(LinkUserGroup, membership_of(user))
        .where(
            tuple_(col(TaskGroupV2.pkg_name), col(TaskV2.name)).in_(set(names)),
            visible_to(user),
            col(TaskGroupV2.resource_id) == project.resource_id,
        )
        .order_by(col(TaskGroupV2.active).desc(), *preferred_by(user))
    )
    known: dict[TaskName, dict[str, Row[Any]]] = {}
    for row in found:
        known.setdefault((row.pkg_name, row.name), {}).setdefault(str(row.version), row)
    return known


def membership_of(user: UserOAuth) -> ColumnElement[bool]:
    """What joins task groups with the user's membership of the user group they are shared with."""
    return (col(LinkUserGroup.group_id) == col(TaskGroupV2.user_group_id)) & (
        col(LinkUserGroup.user_id) == user.id
    )


def preferred_by(user: UserOAuth) -> list[ColumnElement[Any]]:
    """The order of task groups with the same version, with `membership_of` joined.

    The user's own go first, then those of the group that the user has been in for longest, which is
    mostly the one that everybody is in.
    """
    return [
        (col(TaskGroupV2.user_id) == user.id).desc(),
        col(LinkUserGroup.timestamp_created).asc(),
        col(TaskGroupV2.id).desc(),
    ]


def comparable(version: str) -> tuple[bool, Version | str]:
    """Versions that follow the rules come after any others."""
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, version


async def packages_of(session: AsyncSession, workflow: WorkflowV2) -> dict[int | None, str]:
    """By id of a task group, the name of the package that tasks of the workflow are from."""
    ids = {each.task.taskgroupv2_id for each in workflow.task_list}
    found = await session.execute(
        select(col(TaskGroupV2.id), col(TaskGroupV2.pkg_name)).where(col(TaskGroupV2.id).in_(ids))
    )
    return dict(found.tuples().all())


async def newer_versions(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> list[list[TaskVersionRead]]:
    """For each task of a workflow, the newer ones of its name that can take its place.

    Clients compare their arguments with the old ones, so only tasks with schemas are of use.
    """
    packages = await packages_of(session, workflow)
    tasks = [each.task for each in workflow.task_list]
    names = [(packages[task.taskgroupv2_id], task.name) for task in tasks]
    known = await versions_of(session, user, workflow.project, names)
    return [_newer(task, known.get(name, {})) for task, name in zip(tasks, names, strict=True)]


def _newer(task: TaskV2, versions: Versions) -> list[TaskVersionRead]:
    now = comparable(task.version or "")
    if not now[0] or not (task.args_schema_parallel or task.args_schema_non_parallel):
        return []
    return [
        TaskVersionRead(task_id=row.id, version=version)
        for version, row in sorted(versions.items(), key=lambda each: comparable(each[0]))
        if comparable(version) > now
        and row.active
        and row.has_schema
        and may_replace(task.type, row.type)
    ]
