"""Workflows: their names, what may keep their tasks from running, and how they are exported."""

from collections import defaultdict
from typing import Any

import sqlalchemy
from sqlmodel import col, or_, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from api.errors import unprocessable
from api.queries.task_groups import comparable, reasons_not_to_run, visible_to
from fractal_models.rights import NotFoundError
from fractal_models.schemas.workflow import TaskVersionRead, WorkflowReadWithWarnings
from fractal_models.schemas.workflow_import import WorkflowExport
from fractal_models.tables import (
    LinkUserProjectV2,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowV2,
)
from fractal_models.workflow_tasks import argument_problems, may_replace

_CANDIDATE_COLUMNS = [
    col(column)
    for column in (TaskV2.id, TaskV2.name, TaskV2.type, TaskGroupV2.pkg_name, TaskGroupV2.version)
]


async def require_new_name(session: AsyncSession, project_id: int | None, name: str) -> None:
    """Keep names unique in a project.

    Raises:
        HTTPException: 422, it has a workflow of this name.
    """
    found = await session.exec(
        select(WorkflowV2.id).where(WorkflowV2.project_id == project_id, WorkflowV2.name == name)
    )
    if (workflow_id := found.first()) is not None:
        raise unprocessable(f"The project has a workflow {name!r} already: {workflow_id}.")


async def workflow_seen_by(session: AsyncSession, user: UserOAuth, workflow_id: int) -> WorkflowV2:
    """A workflow of any project that the user takes part in.

    Raises:
        NotFoundError: there is none.
    """
    found = await session.exec(
        select(WorkflowV2)
        .join(LinkUserProjectV2, col(LinkUserProjectV2.project_id) == col(WorkflowV2.project_id))
        .where(
            WorkflowV2.id == workflow_id,
            LinkUserProjectV2.user_id == user.id,
            col(LinkUserProjectV2.is_verified),
        )
    )
    if (workflow := found.first()) is None:
        raise NotFoundError("Workflow", workflow_id)
    return workflow


async def with_warnings(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> WorkflowReadWithWarnings:
    """A workflow, whose tasks tell why they would not run, or hardly well."""
    answer = WorkflowReadWithWarnings.model_validate(workflow)
    reasons = await reasons_not_to_run(session, user, workflow)
    for workflow_task, told in zip(workflow.task_list, answer.task_list, strict=True):
        problems = "; ".join(argument_problems(workflow_task))
        told.warning = reasons.get(workflow_task.id) or (f"{problems}." if problems else None)
    return answer


async def export_of(session: AsyncSession, workflow: WorkflowV2) -> WorkflowExport:
    """A workflow with the names of its tasks in place of their ids."""
    groups = await _groups_of(session, workflow)
    entries = []
    for workflow_task in workflow.task_list:
        pkg_name, version = groups[workflow_task.task.taskgroupv2_id]
        name = {"pkg_name": pkg_name, "version": version, "name": workflow_task.task.name}
        entries.append({**workflow_task.model_dump(), "task": name})
    return WorkflowExport.model_validate({**workflow.model_dump(), "task_list": entries})


async def newer_versions(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> list[list[TaskVersionRead]]:
    """For each task of a workflow, the newer ones of its name that can take its place.

    Clients compare their arguments with the old ones, so only tasks with schemas are of use.
    """
    groups = await _groups_of(session, workflow)
    names = {(groups[each.task.taskgroupv2_id][0], each.task.name) for each in workflow.task_list}
    found = await session.execute(
        sqlalchemy.select(*_CANDIDATE_COLUMNS)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskV2.taskgroupv2_id))
        .where(
            tuple_(col(TaskGroupV2.pkg_name), col(TaskV2.name)).in_(names),
            visible_to(user),
            col(TaskGroupV2.active),
            or_(
                col(TaskV2.args_schema_parallel).is_not(None),
                col(TaskV2.args_schema_non_parallel).is_not(None),
            ),
        )
    )
    known: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in sorted(found, key=lambda row: comparable(row.version)):
        known[row.pkg_name, row.name].append(row)
    answer = []
    for task in (workflow_task.task for workflow_task in workflow.task_list):
        pkg_name, version = groups[task.taskgroupv2_id]
        regular, _ = now = comparable(version)
        has_schema = task.args_schema_parallel or task.args_schema_non_parallel
        candidates = known[pkg_name, task.name] if regular and has_schema else []
        answer.append(
            [
                TaskVersionRead(task_id=row.id, version=row.version)
                for row in candidates
                if comparable(row.version) > now and may_replace(task.type, row.type)
            ]
        )
    return answer


async def _groups_of(session: AsyncSession, workflow: WorkflowV2) -> dict[int, tuple[str, str]]:
    """By id of a task group, the package and the version that tasks of the workflow are from."""
    ids = {workflow_task.task.taskgroupv2_id for workflow_task in workflow.task_list}
    found = await session.exec(
        select(TaskGroupV2.id, TaskGroupV2.pkg_name, TaskGroupV2.version).where(
            col(TaskGroupV2.id).in_(ids)
        )
    )
    return {id_: (pkg_name, str(version)) for id_, pkg_name, version in found if id_}
