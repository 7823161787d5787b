"""Task groups and their tasks: which a user sees, and whether they can run."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from operator import eq, ge, le
from typing import Any

from packaging.version import InvalidVersion, Version
from pydantic import AwareDatetime
from sqlalchemy import ColumnElement, Row, Select
from sqlalchemy.orm import load_only
from sqlmodel import col, exists, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries.conditions import asked_for, contains
from api.queries.documents import json_array, json_object, json_text
from fractal_models.database import saved_id
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.rights import shared_with
from fractal_models.schemas.task import (
    Origin,
    TaskGroupReadSlim,
    TaskGroupReadSuperuser,
    TaskReadSlim,
)
from fractal_models.tables import (
    LinkUserGroup,
    Profile,
    Resource,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowV2,
)

_TASK_COLUMNS: dict[str, Any] = {**TaskV2.metadata.tables["taskv2"].c}
_SLIM_TASK = [getattr(TaskV2, name) for name in (*TaskReadSlim.model_fields, "taskgroupv2_id")]


def _in_use() -> ColumnElement[bool]:
    return exists(
        select(WorkflowTaskV2.id)
        .join(TaskV2, col(TaskV2.id) == col(WorkflowTaskV2.task_id))
        .where(TaskV2.taskgroupv2_id == TaskGroupV2.id)
        .correlate(TaskGroupV2)
    )


# A group with what is shown of it beyond its own columns: see `_fields`.
_SHOWN: Select[Any] = select(
    TaskGroupV2, col(UserOAuth.email).label("user_email"), _in_use().label("in_use")
).join(UserOAuth, col(UserOAuth.id) == col(TaskGroupV2.user_id))


_TASKS = (
    select(json_array(json_object(TaskReadSlim, _TASK_COLUMNS), TaskV2.id))
    .where(TaskV2.taskgroupv2_id == TaskGroupV2.id)
    .correlate(TaskGroupV2)
    .scalar_subquery()
)
_SLIM = json_object(
    TaskGroupReadSlim,
    {
        **TaskGroupV2.metadata.tables["taskgroupv2"].c,
        "user_email": UserOAuth.email,
        "in_use": _in_use(),
        "task_list": _TASKS,
    },
)


@dataclass(frozen=True, slots=True)
class TaskGroupFilters:
    """Which task groups are asked for, of all that there are."""

    task_group_id: int | None = None
    user_id: int | None = None
    user_group_id: int | None = None
    private: bool | None = None
    active: bool | None = None
    pkg_name: str | None = None
    origin: Origin | None = None
    timestamp_last_used_min: AwareDatetime | None = None
    timestamp_last_used_max: AwareDatetime | None = None
    resource_id: int | None = None
    in_use: bool | None = None

    def __post_init__(self) -> None:
        if self.private and self.user_group_id is not None:
            raise RefusedError("Private task groups have no user_group_id: ask for one of them.")

    def query(self) -> Select[Any]:
        """The groups, each with the email of its owner and whether it is in use."""
        table = TaskGroupV2
        where = asked_for(
            (eq, table.id, self.task_group_id),
            (eq, table.user_id, self.user_id),
            (eq, table.user_group_id, self.user_group_id),
            (eq, col(table.user_group_id).is_(None), self.private),
            (eq, table.active, self.active),
            (contains, table.pkg_name, self.pkg_name),
            (eq, table.origin, self.origin),
            (ge, table.timestamp_last_used, self.timestamp_last_used_min),
            (le, table.timestamp_last_used, self.timestamp_last_used_max),
            (eq, table.resource_id, self.resource_id),
            (eq, _in_use(), self.in_use),
        )
        return _SHOWN.where(*where).order_by(col(table.id))


def visible_to(user: UserOAuth) -> ColumnElement[bool]:
    """The user's own task groups and those shared with their groups, on their resource."""
    my_resource = select(Profile.resource_id).where(Profile.id == user.profile_id)
    return shared_with(user, TaskGroupV2) & col(TaskGroupV2.resource_id).in_(my_resource)


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


async def list_task_groups_visible_to(session: AsyncSession, user: UserOAuth, *where: Any) -> str:
    """The JSON of the `TaskGroupReadSlim`s by package name, each with its newest version first.

    Of several with the same version there is one, that which the user prefers.
    """
    version = (col(TaskGroupV2.pkg_name), col(TaskGroupV2.version))
    preferred = (
        select(TaskGroupV2.id)
        .outerjoin(LinkUserGroup, membership_of(user))
        .where(visible_to(user), *where)
        .distinct(*version)
        .order_by(*version, *preferred_by(user))
    )
    found = await session.execute(
        select(*version, json_text(_SLIM))
        .join(UserOAuth, col(UserOAuth.id) == col(TaskGroupV2.user_id))
        .where(col(TaskGroupV2.id).in_(preferred))
        .order_by(func.lower(TaskGroupV2.pkg_name), col(TaskGroupV2.id).desc())
    )
    packages: dict[str, list[tuple[str, str]]] = {}
    for name, number, document in found:
        packages.setdefault(name, []).append((str(number), document))
    documents = []
    for name, groups in packages.items():
        newest_first = sorted(groups, key=lambda group: comparable(group[0]), reverse=True)
        listed = ",".join(document for _, document in newest_first)
        documents.append(f"[{json.dumps(name)},[{listed}]]")
    return f"[{','.join(documents)}]"


def comparable(version: str) -> tuple[bool, Version | str]:
    """Versions that follow the rules come after any others."""
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, version


async def require_new(session: AsyncSession, group: TaskGroupV2) -> None:
    """Keep this package version unique per user, and per user group and resource, and its folder.

    The lock is held until the transaction ends, against the same request twice at a time.

    Raises:
        RefusedError: there is one already.
    """
    same = await _lock_and_find_same(session, group)
    mine = await session.exec(
        select(TaskGroupV2.id).where(*same, TaskGroupV2.user_id == group.user_id)
    )
    if (found := mine.first()) is not None:
        raise RefusedError(
            f"You have {group.pkg_name} {group.version} already: task group {found}."
        )
    await require_new_in(session, group, group.user_group_id)
    here = select(Resource.host).where(Resource.id == group.resource_id).scalar_subquery()
    in_folder = await session.exec(
        select(TaskGroupV2.id)
        .join(Resource, col(Resource.id) == col(TaskGroupV2.resource_id))
        .where(
            col(TaskGroupV2.path).is_not(None),
            TaskGroupV2.path == group.path,
            col(Resource.host).is_not_distinct_from(here),
        )
    )
    if (found := in_folder.first()) is not None:
        raise RefusedError(f"Task group {found}, of another resource, is in {group.path} already.")


async def require_new_in(
    session: AsyncSession, group: TaskGroupV2, user_group_id: int | None
) -> None:
    """Keep this package version unique in a user group on its resource, as `require_new`."""
    same = await _lock_and_find_same(session, group)
    shared = await session.exec(
        select(TaskGroupV2.id).where(
            *same,
            col(TaskGroupV2.user_group_id).is_not(None),
            TaskGroupV2.user_group_id == user_group_id,
        )
    )
    if (found := shared.first()) is not None:
        raise RefusedError(
            f"{group.pkg_name} {group.version} is shared with this user group already: "
            f"task group {found}."
        )


async def _lock_and_find_same(session: AsyncSession, group: TaskGroupV2) -> list[Any]:
    """What makes others the same package version on the same resource."""
    key = f"{group.pkg_name} {group.version}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(key))))
    return [
        col(TaskGroupV2.id).is_distinct_from(group.id),
        TaskGroupV2.pkg_name == group.pkg_name,
        TaskGroupV2.version == group.version,
        TaskGroupV2.resource_id == group.resource_id,
    ]


async def describe(session: AsyncSession, group: TaskGroupV2) -> TaskGroupReadSuperuser:
    """A task group as clients see it."""
    found = await session.execute(_SHOWN.where(col(TaskGroupV2.id) == group.id))
    return shown(found.one())


def shown(row: Row[Any]) -> TaskGroupReadSuperuser:
    """A row of `TaskGroupFilters.query` as administrators see it."""
    return TaskGroupReadSuperuser.model_validate(_fields(row))


async def tasks_visible_to(session: AsyncSession, user: UserOAuth) -> list[TaskV2]:
    """The tasks that a user sees, without the schemas of their arguments."""
    found = await session.exec(
        select(TaskV2)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(visible_to(user))
        .options(load_only(*_SLIM_TASK, raiseload=True))
        .order_by(col(TaskV2.id))
    )
    return list(found)


async def usable_tasks(
    session: AsyncSession, user: UserOAuth, resource_id: int, task_ids: Iterable[int]
) -> dict[int, TaskV2]:
    """Tasks by id, to be put into workflows of projects on a resource.

    Raises:
        NotFoundError: the user sees no such task.
        RefusedError: its group is inactive or elsewhere.
    """
    found = await session.exec(
        select(TaskV2, TaskGroupV2)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(col(TaskV2.id).in_(task_ids), visible_to(user))
        # None is deleted until it is in its workflow, which keeps it.
        .with_for_update(read=True, key_share=True, of=TaskGroupV2)
    )
    tasks: dict[int, TaskV2] = {}
    for task, group in found:
        name = f"Task {task.id} ({task.name}, of {group.pkg_name} {group.version})"
        if not group.active:
            raise RefusedError(f"{name} is not active.")
        if group.resource_id != resource_id:
            raise RefusedError(f"{name} is not on the resource of the project.")
        tasks[saved_id(task)] = task
    for task_id in task_ids:
        if task_id not in tasks:
            raise NotFoundError("Task", task_id)
    return tasks


async def require_unused(session: AsyncSession, group: TaskGroupV2) -> None:
    """Keep the tasks of workflows.

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


async def reasons_not_to_run(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> dict[int | None, str]:
    """By id of a workflow task, why its task cannot be run, or not by this user."""
    group_ids = {task.task.taskgroupv2_id for task in workflow.task_list}
    found = await session.exec(
        select(TaskGroupV2.id, TaskGroupV2.active, visible_to(user)).where(
            col(TaskGroupV2.id).in_(group_ids)
        )
    )
    reasons = {
        group_id: "The task is not active." if not active else "The task is not shared with you."
        for group_id, active, visible in found
        if not (active and visible)
    }
    return {
        task.id: reasons[task.task.taskgroupv2_id]
        for task in workflow.task_list
        if task.task.taskgroupv2_id in reasons
    }


def _fields(row: Row[Any]) -> dict[str, Any]:
    group: TaskGroupV2 = row.TaskGroupV2
    added = {"user_email": row.user_email, "in_use": row.in_use}
    return {**group.model_dump(), "task_list": group.task_list, **added}
