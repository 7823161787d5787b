"""Workflows: their names, who sees them, and what may keep their tasks from running."""

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries.task_groups import reasons_not_to_run
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.schemas.workflow import WorkflowReadWithWarnings
from fractal_models.tables import (
    LinkUserProjectV2,
    UserOAuth,
    WorkflowV2,
)
from fractal_models.workflow_tasks import argument_problems


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
