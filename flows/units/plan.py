"""Plans the units of a workflow task: commands and arguments.

A unit is one execution of a task's command. Planning is pure; launchers write the files.
"""

import shlex
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fractal_models.errors import FractalError
from fractal_models.images import Image, ParallelizationItem, Scalar, identity

TaskType = Literal[
    "compound", "converter_compound", "non_parallel", "converter_non_parallel", "parallel"
]
Component = Literal["init", "parallel", "non_parallel"]
Args = Mapping[str, Any]

CONVERTERS: frozenset[TaskType] = frozenset({"converter_compound", "converter_non_parallel"})
COMPOUND: frozenset[TaskType] = frozenset({"compound", "converter_compound"})

_NAME_PREFIX: dict[Component, str] = {"init": "init", "parallel": "par", "non_parallel": "nonpar"}


def title_of(workflow_task: Mapping[str, Any]) -> str:
    """The name of a workflow task (as a job keeps it) for people: its place, and what it does."""
    return f"{workflow_task['order']} {workflow_task.get('alias') or workflow_task['task']['name']}"


def meta_name(component: Component) -> str:
    """The name of the task's field that says which resources the units of a phase need."""
    return "meta_parallel" if component == "parallel" else "meta_non_parallel"


def meta_of(workflow_task: Mapping[str, Any], component: Component) -> dict[str, Any]:
    """What a workflow task (as a job keeps it) says about the resources of the units of a phase.

    If the workflow task says nothing, its task's own value is used.
    """
    own: dict[str, Any] | None = workflow_task.get(meta_name(component))
    return manifest_of(workflow_task, component) if own is None else own


def with_memory(workflow_task: dict[str, Any], mem: str) -> dict[str, Any]:
    """A workflow task whose units get other memory, unless somebody has chosen that of now."""
    changed = dict(workflow_task)
    for component in ("parallel", "non_parallel"):
        meta, own = meta_of(workflow_task, component), manifest_of(workflow_task, component)
        if meta.get("mem") == own.get("mem"):
            changed[meta_name(component)] = {**meta, "mem": mem}
    return changed


def manifest_of(workflow_task: Mapping[str, Any], component: Component) -> dict[str, Any]:
    """What its task itself says about the resources of the units of a phase."""
    return dict(workflow_task["task"].get(meta_name(component)) or {})


class PlanError(FractalError):
    """A workflow task cannot be run as it is; the message says what to change."""


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One unit. Its arguments are the plan's `common_args` plus its `args`; no name is in both."""

    index: int
    name: str
    args: dict[str, Any]
    zarr_urls: list[str]


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """The units of one phase. Arguments that are the same for all of them are kept once."""

    component: Component
    command: list[str]
    common_args: dict[str, Any]
    units: list[PlannedUnit]


def plan_first_phase(
    task_type: TaskType,
    *,
    zarr_urls: Sequence[str],
    zarr_dir: str,
    args_non_parallel: Args | None,
    args_parallel: Args | None,
    command_non_parallel: str | None,
    command_parallel: str | None,
    type_filters: Mapping[str, bool],
    attribute_filters: Mapping[str, Sequence[Scalar]],
) -> UnitPlan:
    """The units to run first: all units, or the init unit of a compound task.

    The second phase of a compound task is checked here too, so that a mistake in it is found before
    the init unit runs. `zarr_urls` are the images that passed the filters; the filters themselves
    are only named in messages.

    Raises:
        PlanError: no images for a task that needs some; a command that is missing or cannot be
            split; an argument with a name that is set for each unit.
    """
    if not zarr_urls and task_type not in CONVERTERS:
        raise PlanError(
            f"No image to process: none passes the type filters {dict(type_filters)} and "
            f"attribute filters {dict(attribute_filters)}. Change the filters or add images."
        )
    if task_type == "parallel":
        own = [({"zarr_url": url}, [url]) for url in zarr_urls]
        return _plan("parallel", command_parallel, args_parallel, own, reserved=("zarr_url",))
    if task_type in COMPOUND:
        plan_compute_phase([], args_parallel=args_parallel, command_parallel=command_parallel)
    component: Component = "init" if task_type in COMPOUND else "non_parallel"
    args: dict[str, Any] = {"zarr_dir": zarr_dir}
    urls: list[str] = []
    if task_type not in CONVERTERS:
        args["zarr_urls"] = urls = list(zarr_urls)
    return _plan(
        component, command_non_parallel, args_non_parallel, [(args, urls)], reserved=tuple(args)
    )


def plan_compute_phase(
    parallelization_list: Sequence[ParallelizationItem],
    *,
    args_parallel: Args | None,
    command_parallel: str | None,
) -> UnitPlan:
    """The second phase of a compound task: one unit per item, no unit for an empty list.

    Items with the same `zarr_url` but different `init_args` are different units. Equal items become
    one unit, because two units would write the same image at the same time.

    Raises:
        PlanError: as `plan_first_phase`.
    """
    items: dict[Hashable, ParallelizationItem] = {}
    for item in parallelization_list:
        items.setdefault((item.zarr_url, identity(item.init_args)), item)
    own = [
        ({"zarr_url": item.zarr_url, "init_args": item.init_args}, [item.zarr_url])
        for item in items.values()
    ]
    return _plan(
        "parallel", command_parallel, args_parallel, own, reserved=("zarr_url", "init_args")
    )


def processed(
    inputs: Sequence[Image], units: Sequence[PlannedUnit], succeeded: Container[int]
) -> list[Image]:
    """The input images that a task has processed; `succeeded` has indexes of units.

    All images if every unit succeeded. Otherwise the images of units that succeeded, without images
    that also belong to a unit that did not.
    """
    done = {url for unit in units if unit.index in succeeded for url in unit.zarr_urls}
    left = [unit for unit in units if unit.index not in succeeded]
    if not left:
        return list(inputs)
    done.difference_update(url for unit in left for url in unit.zarr_urls)
    return [image for image in inputs if image["zarr_url"] in done]


def _plan(
    component: Component,
    command: str | None,
    common_args: Args | None,
    own: Iterable[tuple[dict[str, Any], list[str]]],
    *,
    reserved: tuple[str, ...],
) -> UnitPlan:
    """The plan with one unit per item of `own`: the unit's own arguments, and its images."""
    kind = "parallel" if component == "parallel" else "non_parallel"
    common = dict(common_args or {})
    if taken := [name for name in reserved if name in common]:
        raise PlanError(
            f"args_{kind} sets {', '.join(taken)}, which each unit is given by the job: "
            f"remove it from the workflow task's args_{kind}."
        )
    prefix = _NAME_PREFIX[component]
    units = [
        PlannedUnit(index, f"{prefix}-{index:06d}", args, urls)
        for index, (args, urls) in enumerate(own)
    ]
    return UnitPlan(component, _split(command, f"command_{kind}"), common, units)


def _split(command: str | None, field: str) -> list[str]:
    try:
        words = shlex.split(command or "")
    except ValueError as error:
        raise PlanError(
            f"The task's {field} {command!r} cannot be split into words ({error}): mend its quotes."
        ) from error
    if not words:
        raise PlanError(f"The task has no {field}, which a task of its type needs: set it.")
    return words
