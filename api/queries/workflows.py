"""Workflows: their names, who sees them, and what may keep their tasks from running."""

from typing import Any

from sqlalchemy import Select
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.errors import RefusedError
from fractal_models.json_rows import json_array, json_object
from fractal_models.rights import visible_to
from fractal_models.schemas.project import ProjectRead
from fractal_models.schemas.task import TaskRead
from fractal_models.schemas.workflow import WorkflowReadWithWarnings, WorkflowTaskRead
from fractal_models.tables import (
    ProjectV2,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowV2,
)
from fractal_models.workflow_tasks import argument_problems

_TASKS = (
    select(
        json_array(
            json_object(WorkflowTaskRead, WorkflowTaskV2, task=json_object(TaskRead, TaskV2)),
            WorkflowTaskV2.order,
        )
    )
    .select_from(WorkflowTaskV2)
    .join(TaskV2, col(TaskV2.id) == col(WorkflowTaskV2.task_id))
    .where(WorkflowTaskV2.workflow_id == WorkflowV2.id)
    .correlate(WorkflowV2)
    .scalar_subquery()
)
_COLUMNS: list[Any] = [
    WorkflowV2,
    json_object(ProjectRead, ProjectV2).label("project"),
    _TASKS.label("task_list"),
]
# Workflows as a `WorkflowRead` has them, those with a star first, and then by name.
WORKFLOWS: Select[Any] = (
    select(*_COLUMNS)
    .join(ProjectV2, col(ProjectV2.id) == col(WorkflowV2.project_id))
    .order_by(col(WorkflowV2.is_starred).desc(), WorkflowV2.name, col(WorkflowV2.id))
)


async def require_new_name(session: AsyncSession, project_id: int | None, name: str) -> None:
    """Keep names unique in a project.

    Raises:
        RefusedError: it has a workflow of this name.
    """
    found = await session.exec(
        select(WorkflowV2.id).where(WorkflowV2.project_id == project_id, WorkflowV2.name == name)
    )
    if (workflow_id := found.first()) is not None:
        raise RefusedError(f"The project has a workflow {name!r} already: {workflow_id}.")


async def with_warnings(
    session: AsyncSession, user: UserOAuth, workflow: WorkflowV2
) -> WorkflowReadWithWarnings:
    """A workflow, whose tasks tell why they would not run, or hardly well."""
    answer = WorkflowReadWithWarnings.model_validate(workflow)
    reasons = await _reasons_not_to_run(session, user, workflow)
    unfit = argument_problems(workflow.task_list)
    for told, problems in zip(answer.task_list, unfit, strict=True):
        warning = f"{'; '.join(problems)}." if problems else None
        told.warning = reasons.get(told.id) or warning
    return answer


async def _reasons_not_to_run(
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
