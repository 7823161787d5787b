"""What each workflow task of a job would do, and what is wrong with it. Pure.

The units are planned by the functions that plan them in a job (`flows.units.plan`), and so are
SLURM jobs (`flows.launchers.slurm.sizing`) and what becomes of the image list (`merge_images`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.launchers.slurm.partitions import Partition, misfits
from flows.launchers.slurm.sizing import request_of, sizing_of
from flows.plans import estimates
from flows.plans.images import ExpectedImages, Given, changed_before
from flows.records.needs import EarlierRun, Needs
from flows.reports.quantities import count
from flows.reports.sentences import sentence
from flows.units.plan import (
    COMPOUND,
    CONVERTERS,
    Component,
    PlanError,
    meta_name,
    meta_of,
    plan_first_phase,
)
from fractal_models.errors import FractalError
from fractal_models.image_kinds import ImageKind
from fractal_models.image_search import NOT_DONE
from fractal_models.images import (
    STATUS_ATTRIBUTE,
    FilterError,
    Scalar,
    identity,
    task_type_filters,
)
from fractal_models.schemas.meta import retry_of, warm_units_of
from fractal_models.schemas.plan import Finding, Level, PhasePlan, TaskPlan
from fractal_models.schemas.slurm import JobRunnerConfigSLURM, slurm_meta_of


@dataclass(frozen=True)
class Site:
    """Where units run: `units_at_once` on this machine, or on a cluster, if `slurm` is given."""

    units_at_once: int
    slurm: JobRunnerConfigSLURM | None = None
    account: str | None = None
    cache_dir: str | None = None
    partitions: Mapping[str, Partition] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a plan follows from.

    `tasks` are workflow tasks as a job keeps them; `kinds` the images of the dataset, and `values`
    those of their attributes. `earlier_runs` are by workflow task.
    """

    tasks: Sequence[Mapping[str, Any]]
    zarr_dir: str
    kinds: Sequence[ImageKind]
    values: Mapping[str, Sequence[Scalar]]
    type_filters: Mapping[str, bool]
    attribute_filters: Mapping[str, Sequence[Scalar]]
    needs: Needs
    earlier_runs: Mapping[int, EarlierRun]
    site: Site
    only_not_done: bool = False


def plan_tasks(facts: Facts) -> tuple[list[TaskPlan], list[Finding]]:
    """The plans of all tasks, one after the other, and what is wrong with them."""
    planning = _Planning(facts)
    planning.check_attribute_filters()
    return [planning.plan(task) for task in facts.tasks], planning.findings


def title_of(task: Mapping[str, Any]) -> str:
    """The name of a workflow task for people, as in the job's log."""
    return f"{task['order']} {task.get('alias') or task['task']['name']}"


class _Planning:
    """The plan of a job, as far as it has come."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.images = ExpectedImages(facts.kinds)
        self.type_filters = dict(facts.type_filters)
        self.findings: list[Finding] = []
        self._before: list[Mapping[str, Any]] = []  # tasks that were planned
        self._has_told_none = False

    def plan(self, task: Mapping[str, Any]) -> TaskPlan:
        """Plan the next task."""
        for problem in task.get("argument_problems", []):
            self._find("error", task, f"{sentence(problem)} Change the arguments of the task.")
        given = self._given(task)
        number, images_told = self._number(task, given)
        if (changed := changed_before(task, given)) and not self.facts.only_not_done:
            self._find(
                "warning",
                task,
                f"It has been done with {count(changed, 'image')} of these before, and would "
                "change them again. Choose images that it is not done with, if that is not meant.",
            )
        phases = [
            self._phase(task, component, *units)
            for component, units in self._units(task, given, number)
        ]
        self.images.run(task, given)
        self.type_filters |= task["task"]["output_types"]
        self._before.append(task)
        return TaskPlan(
            order=task["order"],
            name=task.get("alias") or task["task"]["name"],
            type=task["task_type"],
            images=number,
            images_told=images_told,
            phases=phases,
            wall_seconds=estimates.total(phase.wall_seconds for phase in phases),
            cpu_seconds=estimates.total(phase.cpu_seconds for phase in phases),
        )

    def _find(self, level: Level, task: Mapping[str, Any] | None, told: str) -> None:
        told = told if task is None else f"Task {title_of(task)}: {told}"
        self.findings.append(
            Finding(level=level, task=None if task is None else task["order"], told=told)
        )

    # --- images --------------------------------------------------------------------------------

    def check_attribute_filters(self) -> None:
        """Find attributes and values that are filtered by, and that no image has."""
        for key, wanted in self.facts.attribute_filters.items():
            if key == STATUS_ATTRIBUTE or not self.images.kinds:
                continue
            known = self.facts.values.get(key)
            if known is None:
                there = ", ".join(sorted(self.facts.values)) or "none"
                told = (
                    f"No image has the attribute {key!r}, which is filtered by: there is {there}."
                )
            elif missing := [value for value in wanted if not _is_in(value, known)]:
                told = (
                    f"No image has {key} {' or '.join(map(repr, missing[:5]))}, which is filtered "
                    f"by: there is {', '.join(map(repr, known[:5]))}"
                    f"{' and more' if len(known) > 5 else ''}."
                )
            else:
                continue
            self._find("warning", None, f"{told} Change the attribute filters.")

    def _given(self, task: Mapping[str, Any]) -> Given:
        """The images that a task is given; a finding if it would get none."""
        if task["task_type"] in CONVERTERS:
            return Given([], [])
        own = {**task["task"]["input_types"], **task["type_filters"]}
        try:
            wanted = task_type_filters(
                self.type_filters, task["task"]["input_types"], task["type_filters"]
            )
        except FilterError as error:
            self._find("error", task, str(error))
            return Given([], [])
        for key, value in own.items():
            if self.facts.type_filters.get(key, value) is not value:
                self._find(
                    "warning",
                    task,
                    f"The job's type filters want {key} to be {not value}, but this task only "
                    f"takes images of which it is {value}, and that counts. Change the filters.",
                )
        given = self.images.given(wanted, task["id"], self._statuses(task))
        if not (given.number or given.new or self.facts.only_not_done or self._has_told_none):
            self._has_told_none = True  # those after it may have none for the same reason
            self._find("error", task, self._why_none(task, wanted))
        return given

    def _statuses(self, task: Mapping[str, Any]) -> Sequence[Scalar] | None:
        """The statuses that an image may have; see `JobRun.wanted_statuses`."""
        if self.facts.only_not_done:
            return NOT_DONE
        is_first = task is self.facts.tasks[0]
        return self.facts.attribute_filters.get(STATUS_ATTRIBUTE) if is_first else None

    def _why_none(self, task: Mapping[str, Any], wanted: Mapping[str, bool]) -> str:
        """Why no image passes the filters, as sentences."""
        own = {**task["task"]["input_types"], **task["type_filters"]}
        for before in reversed(self._before):
            made = before["task"]["output_types"]
            if clash := [key for key, value in own.items() if made.get(key, value) is not value]:
                told = ", ".join(f"{key} {own[key]}" for key in clash)
                return (
                    f"It takes only images with {told}, but task {title_of(before)}, before it, "
                    "makes images with the opposite, and there are no others: change the order of "
                    "the tasks or their type filters."
                )
        if not self.images.kinds:
            return "The dataset has no images: add some, or begin with a converter."
        if self.images.given(wanted, task["id"], None).number:
            return (
                "No image has the status that is filtered by: it may be done with all of them. "
                "Change the filter."
            )
        if not self.images.given({}, task["id"], None).number:
            return "No image passes the attribute filters: change them."
        told = ", ".join(f"{key} {value}" for key, value in wanted.items())
        return (
            f"None of the {self.images.number} images passes its type filters ({told}): change "
            "these, or the images' types, or run the task first that makes such images."
        )

    def _number(self, task: Mapping[str, Any], given: Given) -> tuple[int | None, str]:
        """How many images a task is given, and that in words; None if it cannot be known."""
        if task["task_type"] in CONVERTERS:
            return 0, "none (it makes images)"
        if not given.new:
            return given.number, f"{given.number} of {self.images.number}"
        made = f"made by task {given.new[0].made_by}"
        if (earlier := self.facts.earlier_runs.get(task["id"])) is not None:
            told = f"about {earlier.num_images}, as in job {earlier.job_id} ({made})"
            return earlier.num_images, told
        return None, f"unknown ({made})"

    # --- units ---------------------------------------------------------------------------------

    def _units(
        self, task: Mapping[str, Any], given: Given, number: int | None
    ) -> Iterator[tuple[Component, tuple[int | None, bool]]]:
        """By component, the number of units, and whether that is only estimated."""
        is_estimated = bool(given.new)
        try:
            # Which images these are makes no difference, only how many.
            plan = plan_first_phase(
                task["task_type"],
                zarr_urls=[""] * (number or 1),
                zarr_dir=self.facts.zarr_dir,
                args_non_parallel=task["args_non_parallel"],
                args_parallel=task["args_parallel"],
                command_non_parallel=task["task"]["command_non_parallel"],
                command_parallel=task["task"]["command_parallel"],
                type_filters=self.type_filters,
                attribute_filters=self.facts.attribute_filters,
            )
        except PlanError as error:
            self._find("error", task, str(error))
            return
        if plan.component == "parallel":
            yield plan.component, (len(plan.units) if number else number, is_estimated)
            return
        yield plan.component, (len(plan.units), False)
        if task["task_type"] in COMPOUND:
            yield "parallel", (self._compute_units(task, number), True)

    def _compute_units(self, task: Mapping[str, Any], number: int | None) -> int | None:
        """How many units the init unit of a compound task may ask for, by its earlier run."""
        earlier = self.facts.earlier_runs.get(task["id"])
        if earlier is None or number is None:
            return None
        units = earlier.num_units.get("parallel", 0)
        if number and earlier.num_images:
            return round(units * number / earlier.num_images)
        return units

    def _phase(
        self, task: Mapping[str, Any], component: Component, units: int | None, estimated: bool
    ) -> PhasePlan:
        plan = PhasePlan(
            component=component,
            units=units,
            units_are_estimated=estimated and units is not None,
            batches=None if units is None else min(units, 1),
            units_at_once=None if units is None else min(units, self.facts.site.units_at_once),
        )
        meta = meta_of(task, component)
        try:
            retry_of(meta)
            warm_units_of(meta)
        except ValueError as error:
            self._find("error", task, f"{meta_name(component)} is wrong: {error}")
        if self.facts.site.slurm is not None:
            plan = self._on_slurm(self.facts.site.slurm, task, plan, meta)
        need = self.facts.needs.get((task["task_id"], component))
        if need is None:
            return plan
        plan.measured_units, plan.measured_memory_mb = need.num_units, estimates.memory_mb(need)
        if plan.units and plan.units_at_once:
            plan.wall_seconds = estimates.wall_seconds(plan.units, plan.units_at_once, need)
            plan.cpu_seconds = estimates.cpu_seconds(plan.units, need)
        return plan

    def _on_slurm(
        self,
        config: JobRunnerConfigSLURM,
        task: Mapping[str, Any],
        plan: PhasePlan,
        meta: dict[str, Any],
    ) -> PhasePlan:
        """The plan of a phase with SLURM jobs; what these ask for is compared with partitions."""
        site = self.facts.site
        try:
            slurm_meta = slurm_meta_of(meta)
        except ValueError:
            return plan  # which the submission would be refused for
        try:
            request = request_of(config, slurm_meta, site.account, cache_dir=site.cache_dir)
            sizing = sizing_of(plan.units or 1, config, slurm_meta, request)
        except FractalError as error:
            self._find("error", task, str(error))
            return plan
        for problem in misfits(request, sizing.parallel_tasks, site.partitions):
            self._find("error", task, problem)
        jobs_at_once = min(len(sizing.sizes), request.max_running_jobs or len(sizing.sizes))
        asked = {
            "cpus": request.cpus_per_task,
            "memory_mb": request.mem,
            "time": request.time,
            "partition": request.partition,
        }
        if plan.units is None:
            return plan.model_copy(update=asked)
        at_once = min(plan.units, jobs_at_once * sizing.parallel_tasks)
        batches = len(sizing.sizes) if plan.units else 0
        return plan.model_copy(update={**asked, "batches": batches, "units_at_once": at_once})


def _is_in(value: Scalar, known: Sequence[Scalar]) -> bool:
    return identity(value) in map(identity, known)
