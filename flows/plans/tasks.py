"""What each workflow task of a job would do, and what is wrong with it. Pure.

The units are planned by the functions that plan them in a job (`flows.units.plan`), and so are
SLURM jobs (`flows.launchers.slurm.sizing`) and what becomes of the image list (`merge_images`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.plans import estimates
from flows.plans.filters import attribute_filter_problems, overridden_filters, why_no_image
from flows.plans.images import ExpectedImages, Given, changed_before
from flows.plans.phases import Site, Units, plan_phase
from flows.records.needs import EarlierRun, Needs
from flows.reports.quantities import count
from flows.reports.sentences import sentence
from flows.units.plan import (
    COMPOUND,
    CONVERTERS,
    PlanError,
    manifest_of,
    meta_of,
    plan_first_phase,
    title_of,
)
from fractal_models.argument_schemas import NOT_SET
from fractal_models.image_kinds import ImageKind
from fractal_models.image_search import NOT_DONE
from fractal_models.images import STATUS_ATTRIBUTE, FilterError, Scalar, task_type_filters
from fractal_models.schemas.plan import Finding, Level, PhasePlan, TaskPlan

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """What a plan follows from.

    `tasks` are workflow tasks as a job keeps them; `kinds` the images of the dataset, and `values`
    those of their attributes. `earlier_runs` are by workflow task.
    """

    tasks: Sequence[Task]
    zarr_dir: str
    kinds: Sequence[ImageKind]
    values: Mapping[str, Sequence[Scalar]]
    type_filters: Mapping[str, bool]
    attribute_filters: Mapping[str, Sequence[Scalar]]
    needs: Needs
    earlier_runs: Mapping[int, EarlierRun]
    site: Site
    only_not_done: bool = False

    def wanted_statuses(self, task: Task) -> Sequence[Scalar] | None:
        """The statuses that an image may have; see `JobRun.wanted_statuses`."""
        if self.only_not_done:
            return NOT_DONE
        return self.attribute_filters.get(STATUS_ATTRIBUTE) if task is self.tasks[0] else None


def plan_tasks(facts: Facts) -> tuple[list[TaskPlan], list[Finding]]:
    """The plans of all tasks, one after the other, and what is wrong with them."""
    planning = _Planning(facts)
    return [planning.plan(task) for task in facts.tasks], planning.findings


def images_of_first_task(facts: Facts) -> list[str]:
    """URLs of some images that the first task would be given, of each kind."""
    first = facts.tasks[0]
    if first["task_type"] in CONVERTERS:
        return []
    own = (first["task"]["input_types"], first["type_filters"])
    try:
        wanted = task_type_filters(facts.type_filters, *own)
    except FilterError:  # which the plan of the task tells
        return []
    images = ExpectedImages(facts.kinds)
    given = images.given(wanted, first["id"], facts.wanted_statuses(first))
    return [url for kind in given.kinds for url in kind.examples]


class _Planning:
    """The plan of a job, as far as it has come."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.images = ExpectedImages(facts.kinds)
        self.type_filters = dict(facts.type_filters)
        self.before: list[Task] = []
        self._has_told_none = False
        wrong = attribute_filter_problems(facts.attribute_filters, facts.values)
        self.findings = [Finding(level="warning", told=told) for told in wrong if facts.kinds]

    def plan(self, task: Task) -> TaskPlan:
        """Plan the next task."""
        for each in task.get("argument_problems", []):
            # Of other arguments, only the task knows what it makes.
            level: Level = "error" if each.endswith(NOT_SET) else "warning"
            self._find(level, task, [f"{sentence(each)} Change the arguments."])
        given = self._given(task)
        number, images_told = self._number(task, given)
        phases = [self._phase(task, units) for units in self._units(task, given, number)]
        self.images.run(task, given)
        self.type_filters |= task["task"]["output_types"]
        self.before.append(task)
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

    def _find(self, level: Level, task: Task, problems: Iterable[str]) -> None:
        for problem in problems:
            told = f"Task {title_of(task)}: {problem}"
            self.findings.append(Finding(level=level, task=task["order"], told=told))

    def _given(self, task: Task) -> Given:
        """The images that a task is given."""
        if task["task_type"] in CONVERTERS:
            return Given([], [])
        own = (task["task"]["input_types"], task["type_filters"])
        try:
            wanted = task_type_filters(self.type_filters, *own)
        except FilterError as error:
            self._find("error", task, [str(error)])
            return Given([], [])
        problems = overridden_filters(task, self.facts.type_filters, self.before)
        self._find("warning", task, problems)
        given = self.images.given(wanted, task["id"], self.facts.wanted_statuses(task))
        if not self.facts.only_not_done:
            self._check_given(task, given, wanted)
        return given

    def _check_given(self, task: Task, given: Given, wanted: Mapping[str, bool]) -> None:
        """Find that there are no images, or that these were changed before."""
        if not (given.number or given.new or self._has_told_none):
            self._has_told_none = True  # those after it may have none for the same reason
            self._find("error", task, [why_no_image(task, self.images, wanted, self.before)])
        if changed := changed_before(task, given):
            told = (
                f"It has been done with {count(changed, 'image')} of these before, and would "
                "change them again. Choose images that it is not done with, if that is not meant."
            )
            self._find("warning", task, [told])

    def _number(self, task: Task, given: Given) -> tuple[int | None, str]:
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

    def _units(self, task: Task, given: Given, number: int | None) -> list[Units]:
        """The units of each phase; none if they cannot be planned."""
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
            self._find("error", task, [str(error)])
            return []
        if plan.component == "parallel":
            planned = len(plan.units) if number else number
            return [Units(plan.component, planned, is_estimated=bool(given.new))]
        has_none = number == 0 and task["task_type"] not in CONVERTERS
        first = Units(plan.component, 0 if has_none else len(plan.units))
        if task["task_type"] not in COMPOUND:
            return [first]
        more = 0 if has_none else self._compute_units(task, number)
        return [first, Units("parallel", more, is_estimated=True)]

    def _compute_units(self, task: Task, number: int | None) -> int | None:
        """How many units the init unit of a compound task may ask for, by its earlier run."""
        earlier = self.facts.earlier_runs.get(task["id"])
        if earlier is None or number is None:
            return None
        units = earlier.num_units.get("parallel", 0)
        if number and earlier.num_images:
            return round(units * number / earlier.num_images)
        return units

    def _phase(self, task: Task, units: Units) -> PhasePlan:
        need = self.facts.needs.get((task["task_id"], units.component))
        meta = meta_of(task, units.component)
        own = manifest_of(task, units.component)
        plan, problems = plan_phase(self.facts.site, units, meta, own, need)
        self._find("error", task, problems)
        return plan
