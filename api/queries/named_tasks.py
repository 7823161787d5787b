"""Tasks by package, name and version, as workflows from elsewhere name them."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlmodel import col, or_, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from api.errors import ErrorWithData
from api.queries.task_groups import comparable, membership_of, preferred_by
from fractal_models.rights import visible_to
from fractal_models.schemas.workflow import TaskVersionRead
from fractal_models.schemas.workflow_import import TaskImport, WorkflowExport
from fractal_models.tables import (
    LinkUserGroup,
    ProjectV2,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowV2,
)
from fractal_models.workflow_tasks import may_replace

_Name = tuple[str, str]
_Versions = dict[str, Any]

_HAS_SCHEMA = or_(
    col(TaskV2.args_schema_parallel).is_not(None), col(TaskV2.args_schema_non_parallel).is_not(None)
)
_COLUMNS = [
    *map(col, (TaskGroupV2.pkg_name, TaskV2.name, TaskGroupV2.version, TaskV2.id, TaskV2.type)),
    *map(col, (TaskGroupV2.active, TaskV2.is_core)),
    _HAS_SCHEMA.label("has_schema"),
]


async def tasks_named(
    session: AsyncSession, user: UserOAuth, project: ProjectV2, wanted: Sequence[TaskImport]
) -> list[TaskV2]:
    """The task that each name stands for, among those that the user sees.

    Raises:
        ErrorWithData: some are not there; the data says which, and in which other versions.
    """
    known = await _versions(session, user, project, [(each.pkg_name, each.name) for each in wanted])
    outcomes = [_outcome(each, known.get((each.pkg_name, each.name), {})) for each in wanted]
    if any(outcome["outcome"] == "fail" for outcome in outcomes):
        raise ErrorWithData(outcomes)
    ids = [outcome["task_id"] for outcome in outcomes]
    found = await session.execute(select(TaskV2).where(col(TaskV2.id).in_(ids)))
    tasks = {task.id: task for task in found.scalars()}
    return [tasks[task_id] for task_id in ids]


async def export_of(session: AsyncSession, workflow: WorkflowV2) -> WorkflowExport:
    """A workflow with the names of its tasks in place of their ids."""
    packages = await _packages_of(session, workflow)
    entries = []
    for each in workflow.task_list:
        name = {"pkg_name": packages[each.task.taskgroupv2_id], **each.task.model_dump()}
        entries.append({**each.model_dump(), "task": name})
    return WorkflowExport.model_validate({**workflow.model_dump(), "task_list": entries})


async def newer_versions(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> list[list[TaskVersionRead]]:
    """For each task of a workflow, the newer ones of its name that can take its place.

    Clients compare their arguments with the old ones, so only tasks with schemas are of use.
    """
    packages = await _packages_of(session, workflow)
    tasks = [each.task for each in workflow.task_list]
    names = [(packages[task.taskgroupv2_id], task.name) for task in tasks]
    known = await _versions(session, user, workflow.project, names)
    return [_newer(task, known.get(name, {})) for task, name in zip(tasks, names, strict=True)]


async def _packages_of(session: AsyncSession, workflow: WorkflowV2) -> dict[int | None, str]:
    """By id of a task group, the name of the package that tasks of the workflow are from."""
    ids = {each.task.taskgroupv2_id for each in workflow.task_list}
    found = await session.execute(
        select(col(TaskGroupV2.id), col(TaskGroupV2.pkg_name)).where(col(TaskGroupV2.id).in_(ids))
    )
    return dict(found.tuples().all())


async def _versions(
    session: AsyncSession, user: UserOAuth, project: ProjectV2, names: Iterable[_Name]
) -> dict[_Name, _Versions]:
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
    known: dict[_Name, _Versions] = {}
    for row in found:
        known.setdefault((row.pkg_name, row.name), {}).setdefault(str(row.version), row)
    return known


def _outcome(wanted: TaskImport, versions: _Versions) -> dict[str, Any]:
    """What became of a name, as clients expect it; the newest of the available tasks first."""
    asked = {"pkg_name": wanted.pkg_name, "version": wanted.version, "task_name": wanted.name}
    if wanted.version in versions:
        return {"outcome": "success", **asked, "task_id": versions[wanted.version].id}
    target = None if wanted.version is None else comparable(wanted.version)
    available = [
        {
            "version": version,
            "older_than_target": target is not None and comparable(version) < target,
            "active": versions[version].active,
            "is_core": versions[version].is_core,
        }
        for version in sorted(versions, key=comparable, reverse=True)
    ]
    return {"outcome": "fail", **asked, "available_tasks": available}


def _newer(task: TaskV2, versions: _Versions) -> list[TaskVersionRead]:
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
