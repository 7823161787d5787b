"""Workflows that leave, or come from elsewhere: with the names of tasks in place of their ids."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.schemas.workflow_import import TaskImport, WorkflowExport, WorkflowImport
from fractal_models.tables import ProjectV2, TaskV2, UserOAuth, WorkflowV2
from fractal_models.task_versions import Versions, comparable, packages_of, versions_of
from fractal_models.workflow_tasks import input_types_of, new_workflow_task


class TasksNotFoundError(RefusedError):
    """Tasks of a workflow from elsewhere are not there.

    `outcomes` says for each task, as clients expect it, whether it was found, and if not, which
    other versions there are.
    """

    def __init__(self, outcomes: list[dict[str, Any]]) -> None:
        super().__init__("Some of the tasks are not there in the version that is asked for.")
        self.outcomes = outcomes


async def export_workflow(session: AsyncSession, workflow: WorkflowV2) -> WorkflowExport:
    """A workflow as it leaves."""
    packages = await packages_of(session, workflow)
    entries = []
    for each in workflow.task_list:
        name = {"pkg_name": packages[each.task.taskgroupv2_id], **each.task.model_dump()}
        entries.append({**each.model_dump(), "task": name})
    return WorkflowExport.model_validate({**workflow.model_dump(), "task_list": entries})


async def import_workflow(
    session: AsyncSession, user: UserOAuth, project: ProjectV2, request: WorkflowImport
) -> WorkflowV2:
    """A new workflow of the project (not committed), of tasks that the user sees.

    Raises:
        TasksNotFoundError: some tasks are not there.
        UnfitError: the type filters of a task contradict those of the workflow.
    """
    wanted = [entry.task for entry in request.task_list]
    tasks = await _tasks_named(session, user, project, wanted)
    workflow = WorkflowV2(
        name=request.name,
        description=request.description,
        project_id=saved_id(project),
        project=project,
        task_list=[],
    )
    for order, (entry, task) in enumerate(zip(request.task_list, tasks, strict=True)):
        input_types_of(task, entry.type_filters)
        fields = entry.model_dump(exclude={"task", "input_filters"})
        workflow.task_list.append(new_workflow_task(task, order=order, **fields))
    session.add(workflow)
    return workflow


async def _tasks_named(
    session: AsyncSession, user: UserOAuth, project: ProjectV2, wanted: Sequence[TaskImport]
) -> list[TaskV2]:
    """The task that each name stands for, among those that the user sees."""
    names = [(each.pkg_name, each.name) for each in wanted]
    known = await versions_of(session, user, project, names)
    outcomes = [
        _outcome(each, known.get(name, {})) for each, name in zip(wanted, names, strict=True)
    ]
    if any(outcome["outcome"] == "fail" for outcome in outcomes):
        raise TasksNotFoundError(outcomes)
    ids = [outcome["task_id"] for outcome in outcomes]
    found = await session.exec(select(TaskV2).where(col(TaskV2.id).in_(ids)))
    tasks = {task.id: task for task in found}
    return [tasks[task_id] for task_id in ids]


def _outcome(wanted: TaskImport, versions: Versions) -> dict[str, Any]:
    """What became of a name; the newest of the available tasks first."""
    asked = {"pkg_name": wanted.pkg_name, "version": wanted.version, "task_name": wanted.name}
    if wanted.version is not None and wanted.version in versions:
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
