"""Rules for tasks in workflows: what a workflow task takes from its task, and what must fit it."""

from collections.abc import Iterable, Mapping
from typing import Any

from fractal_models.argument_schemas import Steps, schema_problems
from fractal_models.database import saved_id
from fractal_models.errors import RefusedError
from fractal_models.images import FilterError, merge_type_filters
from fractal_models.tables import TaskV2, WorkflowTaskV2

COMPONENTS = ("non_parallel", "parallel")

_BECOMES_CONVERTER = {
    ("non_parallel", "converter_non_parallel"),
    ("compound", "converter_compound"),
}


class UnfitError(RefusedError):
    """A task cannot be used like this; the message says why."""


def new_workflow_task(task: TaskV2, **fields: Any) -> WorkflowTaskV2:
    """Make a workflow task. Its `meta` is that of the task, overridden by the given one."""
    for component in COMPONENTS:
        name = f"meta_{component}"
        fields[name] = {**(getattr(task, name) or {}), **(fields.get(name) or {})} or None
    return WorkflowTaskV2(**fields, task_id=saved_id(task), task_type=task.type, task=task)


def may_replace(old_type: str, new_type: str) -> bool:
    """Whether arguments for a task of the old type fit a task of the new type."""
    return old_type == new_type or (old_type, new_type) in _BECOMES_CONVERTER


def replace_task(workflow_task: WorkflowTaskV2, task: TaskV2) -> None:
    """Replace the task of a workflow task by another one, or by another version of it.

    Changes that users made to the old task's `meta` stay; the rest comes from the new task.

    Raises:
        UnfitError: the tasks have different types, or the type filters contradict the new task.
    """
    if not may_replace(workflow_task.task_type, task.type):
        raise UnfitError(
            f"A {workflow_task.task_type} task cannot be replaced by a {task.type} one, "
            f"like {task.name!r}."
        )
    input_types_of(task, workflow_task.type_filters)
    for component in COMPONENTS:
        name = f"meta_{component}"
        old, own, new = (
            getattr(each, name) or {} for each in (workflow_task.task, workflow_task, task)
        )
        if getattr(workflow_task, name) is not None:
            kept = {key: value for key, value in new.items() if key in own or key not in old}
            changed = {k: v for k, v in own.items() if k not in old or old[k] != v}
            new = {**kept, **changed}
        has_command = getattr(task, f"command_{component}") is not None
        setattr(workflow_task, name, new or ({} if has_command else None))
    workflow_task.task, workflow_task.task_type = task, task.type


def check_components(task: TaskV2, fields: Mapping[str, Any]) -> None:
    """Raise UnfitError if a field is for a component that the task does not have."""
    for component in COMPONENTS:
        for name in (f"args_{component}", f"meta_{component}"):
            if fields.get(name) is not None and getattr(task, f"command_{component}") is None:
                raise UnfitError(f"Task {task.name!r} is {task.type}: it takes no {name}.")


def input_types_of(task: TaskV2, type_filters: Mapping[str, bool]) -> dict[str, bool]:
    """The types that an image must have for a task in a workflow.

    Raises:
        UnfitError: the workflow task's filters contradict those of the task.
    """
    try:
        return merge_type_filters(task.input_types, type_filters)
    except FilterError as error:
        raise UnfitError(str(error)) from error


def argument_problems(workflow_tasks: Iterable[WorkflowTaskV2]) -> list[list[str]]:
    """For each task, where the arguments that are set do not fit its schemas, as phrases.

    What jobs give to each unit need not be set. That takes some tenths of a second at most: tasks
    for which there is no time left are not compared.
    """
    steps = Steps()
    return [_argument_problems(workflow_task, steps) for workflow_task in workflow_tasks]


def _argument_problems(workflow_task: WorkflowTaskV2, steps: Steps) -> list[str]:
    problems = []
    for component in COMPONENTS:
        schema = getattr(workflow_task.task, f"args_schema_{component}")
        given = getattr(workflow_task, f"args_{component}") or {}
        if isinstance(schema, dict):
            found = schema_problems(schema, given, steps)
            problems += [f"args_{component}: {each}" for each in found]
    return problems
