"""One workflow task of a job: the images that it gets, and the changes that its units make."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar, get_args

from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job.phase import Failure, Output, Phase
from flows.job.run import JobRun
from flows.launchers.slurm.right_size import Measured, RightSize, is_auto, right_size
from flows.records.needs import Needs, needs_of
from flows.records.runs import RunEnd, Status, order_of
from flows.records.units import RecordedUnit
from flows.reports.artifacts import Progress
from flows.units.plan import (
    COMPOUND,
    CONVERTERS,
    Component,
    PlanError,
    TaskType,
    UnitPlan,
    manifest_of,
    meta_name,
    meta_of,
    plan_compute_phase,
    plan_first_phase,
    processed,
    title_of,
)
from fractal_models.database import saved_id
from fractal_models.image_list import count_images, read_images, read_named_images
from fractal_models.image_search import ImageSearch
from fractal_models.images import (
    STATUS_ATTRIBUTE,
    FilterError,
    Image,
    ImageListError,
    InitOutput,
    MergeResult,
    Scalar,
    TaskOutput,
    merge_images,
    named_images,
    task_type_filters,
)
from fractal_models.schemas.meta import Retry, retry_of, warm_units_of
from fractal_models.tables.columns import now

Told = TypeVar("Told")


class WorkflowTaskRun:
    """A workflow task while it runs. A plain object: Prefect must not look into its images."""

    def __init__(self, job: JobRun, workflow_task: Mapping[str, Any]) -> None:
        self.job = job
        self.dump = dict(workflow_task)
        self.task: dict[str, Any] = self.dump["task"]
        self.type: TaskType = self.dump["task_type"]
        self.order: int = self.dump["order"]
        self.title = title_of(self.dump)
        runs = [run for run in job.recorded if order_of(run) == self.order]
        # HistoryRuns that failed before the last retry of the job run again, for the images left
        # undone.
        self.failed_runs = [
            saved_id(run)
            for run in runs
            if run.status == "failed" and saved_id(run) <= (job.job.retried_after or 0)
        ]
        self.earlier = runs[-1] if len(runs) > len(self.failed_runs) else None
        retry = len(self.failed_runs)
        self.units_dir = job.folder.units_dir(self.order, self.task["name"], retry)
        self.key = f"job-{job.job.id}-{self.units_dir.name.replace('_', '-')}"
        self.began = self.earlier.timestamp_started if self.earlier else now()
        self.phases: list[Phase[InitOutput] | Phase[TaskOutput]] = []
        self.merged: MergeResult | None = None
        self.is_mergeable = True  # what its units made of the image list
        self.history_run_id: int | None = None
        self.recorded_status: str | None = None  # and units: of an executor before this one
        self.recorded_units: list[RecordedUnit] = []
        self.needs: Needs = {}  # of earlier units, where the memory of these is left to that
        self.recorded = False
        self.why_it_failed: Exception | None = None
        self.not_recorded: Exception | None = None  # why, if the database refused
        self.type_filters: dict[str, bool] = {}
        self.inputs: list[Image] = []  # a converter has none
        self.num_images = 0  # of the dataset
        self.num_available_images = 0  # that pass the type filters
        self.problem: FilterError | None = None
        try:
            self.type_filters = task_type_filters(
                job.type_filters, self.task["input_types"], self.dump["type_filters"]
            )
        except FilterError as error:
            self.problem = error

    async def take_inputs(self, session: AsyncSession, done_before: Collection[str]) -> None:
        """Read the images that the task sees; no others, since a dataset can have a million.

        A task that was begun before an interruption keeps the images with which it began. A task
        that runs again leaves out the images in `done_before`.
        """
        if self.problem is not None or self.type in CONVERTERS:
            return
        dataset_id = self.job.job.dataset_id
        if self.recorded_units:
            first = self.recorded_units[: None if self.type == "parallel" else 1]
            began_with = {url for unit in first for url in unit.zarr_urls}
            self.inputs = await read_named_images(session, dataset_id, began_with)
            return
        self.num_images = await count_images(session, ImageSearch(dataset_id))
        search = ImageSearch(dataset_id, self.dump["id"])
        search.filter_by(self.type_filters, {})
        self.num_available_images = await count_images(session, search)
        search.filter_by({}, self.job.attribute_filters)
        if (wanted := self.wanted_statuses) is not None:
            search.filter_by({}, {STATUS_ATTRIBUTE: wanted})
        found = await read_images(session, search)
        self.inputs = [image for image in found if image["zarr_url"] not in done_before]

    async def take_measures(self, session: AsyncSession) -> None:
        """Read what earlier units needed, if the memory of these is left to that."""
        if any(self._leaves_memory(component) for component in get_args(Component)):
            self.needs = await needs_of(session, [self.dump["task_id"]])

    def _leaves_memory(self, component: Component) -> bool:
        """Whether the memory of units is what earlier ones needed."""
        own = manifest_of(self.dump, component)
        config, meta = self.job.slurm, meta_of(self.dump, component)
        return config is not None and is_auto(config, meta, own)

    def _right_size(self, component: Component) -> RightSize | None:
        """The resources of units whose memory is left to what earlier ones needed."""
        if self.job.slurm is None or not self._leaves_memory(component):
            return None
        need = self.needs.get((self.dump["task_id"], component))
        measured = None if need is None else Measured(need.peak_rss_kb.highest, need.num_units)
        own = manifest_of(self.dump, component)
        return right_size(self.job.slurm, meta_of(self.dump, component), own, measured)

    @property
    def wanted_statuses(self) -> Sequence[Scalar] | None:
        """The statuses that an image may have to be chosen; None if the status does not matter."""
        return self.job.wanted_statuses(self.order)

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether the job wants only images that are not done, and this task has none of these."""
        begun = self.history_run_id is not None
        sees_images = self.problem is None and self.type not in CONVERTERS
        return self.job.job.only_not_done and sees_images and not (begun or self.inputs)

    def retry(self, component: Component) -> Retry:
        """How often, and after which delay, failed units run again.

        Raises:
            PlanError: the task's `retry` is not valid.
        """
        return self._told_in_meta(component, retry_of)

    def has_warm_units(self, component: Component) -> bool:
        """Whether imports are made once for units, where that is safe.

        Raises:
            PlanError: the task's `warm_units` is not valid.
        """
        wanted = self._told_in_meta(component, warm_units_of)
        return self.job.allows_warm_units and wanted != "off"

    def _told_in_meta(self, component: Component, read: Callable[[dict[str, Any]], Told]) -> Told:
        try:
            return read(meta_of(self.dump, component))
        except ValueError as error:
            raise PlanError(f"{meta_name(component)} is wrong: {error}") from error

    @property
    def is_compound(self) -> bool:
        return self.type in COMPOUND

    def plan_first_phase(self) -> UnitPlan:
        """The first units to run.

        Raises:
            FilterError: the type filters contradict each other.
            PlanError: the task cannot run on these images or with these arguments.
        """
        if self.problem is not None:
            raise self.problem
        return plan_first_phase(
            self.type,
            zarr_urls=[image["zarr_url"] for image in self.inputs],
            zarr_dir=self.job.zarr_dir,
            args_non_parallel=self.dump["args_non_parallel"],
            args_parallel=self.dump["args_parallel"],
            command_non_parallel=self.task["command_non_parallel"],
            command_parallel=self.task["command_parallel"],
            type_filters=self.type_filters,
            attribute_filters=self.job.job.attribute_filters,
        )

    def plan_compute_phase(self, init: InitOutput) -> UnitPlan:
        """The second phase of a compound task."""
        return plan_compute_phase(
            init.parallelization_list,
            args_parallel=self.dump["args_parallel"],
            command_parallel=self.task["command_parallel"],
        )

    def phase(
        self,
        plan: UnitPlan,
        parse: Callable[[bytes | None], Output],
        progress: Progress,
    ) -> Phase[Output]:
        """Make the next phase, with the units of this plan to run."""
        sized = self._right_size(plan.component)
        phase = Phase(
            self.job,
            self.title,
            plan,
            meta_of(self.dump, plan.component) if sized is None else sized.meta,
            self.units_dir,
            parse,
            progress,
            warm=self.has_warm_units(plan.component),
            why_memory=None if sized is None else sized.told,
        )
        self.phases.append(phase)
        return phase

    @property
    def failures(self) -> list[tuple[Phase[Any], int, Failure]]:
        """The failed units: phase, index and reason of each."""
        return [
            (phase, index, failure)
            for phase in self.phases
            for index, failure in sorted(phase.failures.items())
        ]

    @property
    def num_units(self) -> int:
        return sum(len(phase.plan.units) for phase in self.phases)

    @property
    def num_succeeded(self) -> int:
        return sum(len(phase.outputs) for phase in self.phases)

    async def merge(self, last_phase: Phase[TaskOutput]) -> None:
        """Merge the outputs of the units that succeeded into the image list.

        Raises:
            ImageListError: the outputs break the rules of image lists.
        """
        outputs = last_phase.outputs
        if not outputs and last_phase.plan.units:
            return
        known = {image["zarr_url"]: image for image in self.inputs}
        others = named_images(outputs.values()).difference(known)
        async with self.job.database() as session:
            for image in await read_named_images(session, self.job.job.dataset_id, others):
                known[image["zarr_url"]] = image
        await asyncio.to_thread(self._merge, list(known.values()), last_phase)

    def _merge(self, images: Sequence[Image], last_phase: Phase[TaskOutput]) -> None:
        outputs = last_phase.outputs
        try:
            self.merged = merge_images(
                images,
                [outputs[index] for index in sorted(outputs)],
                input_images=processed(self.inputs, last_phase.plan.units, outputs),
                zarr_dir=self.job.zarr_dir,
                output_types=self.task["output_types"],
            )
        except ImageListError:
            self.is_mergeable = False
            raise

    def end(self, status: Status, reason: str) -> RunEnd:
        """What to record about the end of this workflow task, with the reason if it failed."""
        # The units of a compound task succeed or fail together. So do units whose merged outputs
        # break the rules of image lists.
        together = status == "failed" and (self.is_compound or not self.is_mergeable)
        merged = self.merged
        return RunEnd(
            status=status,
            num_units=self.num_units,
            num_failed_units=self.num_units if together else self.num_units - self.num_succeeded,
            written=merged.written if merged else (),
            num_new_images=merged.num_new if merged else 0,
            removed=merged.removed if merged else (),
            all_units_fail=together,
            reason=reason,
        )
