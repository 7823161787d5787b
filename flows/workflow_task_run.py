"""One workflow task of a job: which images it sees, what its units made of the image list."""

from collections.abc import Mapping
from typing import Any

from flows.history import RunEnd, Status
from flows.job_folder import slug
from flows.job_run import JobRun
from flows.phase import Phase
from flows.units import (
    COMPOUND,
    CONVERTERS,
    TaskType,
    UnitPlan,
    plan_compute_phase,
    plan_first_phase,
)
from fractal_models.images import (
    FilterError,
    Image,
    InitOutput,
    MergeResult,
    TaskOutput,
    filter_images,
    merge_images,
    task_type_filters,
)


class WorkflowTaskRun:
    """A workflow task while it runs. A plain object: Prefect must not look into its images."""

    def __init__(self, job: JobRun, workflow_task: Mapping[str, Any]) -> None:
        self.job = job
        self.dump = dict(workflow_task)
        self.task: dict[str, Any] = self.dump["task"]
        self.type: TaskType = self.dump["task_type"]
        self.order: int = self.dump["order"]
        self.title = f"{self.order} {self.dump.get('alias') or self.task['name']}"
        self.units_dir = job.folder.units_dir(self.order, self.task["name"])
        self.key = f"job-{job.job.id}-{self.order}-{slug(self.task['name']).replace('_', '-')}"
        self.phases: list[Phase[InitOutput] | Phase[TaskOutput]] = []
        self.merged: MergeResult | None = None
        self.history_run_id: int | None = None
        self.recorded = False
        self.type_filters: dict[str, bool] = {}
        self.inputs: list[Image] = []  # a converter has none
        self.problem: FilterError | None = None
        try:
            self.type_filters = task_type_filters(
                job.type_filters, self.task["input_types"], self.dump["type_filters"]
            )
        except FilterError as error:
            self.problem = error
        if self.problem is None and self.type not in CONVERTERS:
            self.inputs = filter_images(job.images, self.type_filters, job.job.attribute_filters)

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

    @property
    def failures(self) -> list[tuple[Phase[Any], int, str]]:
        """The units that failed: their phase, their index, why."""
        return [
            (phase, index, reason)
            for phase in self.phases
            for index, reason in sorted(phase.failures.items())
        ]

    @property
    def num_units(self) -> int:
        return sum(len(phase.plan.units) for phase in self.phases)

    def merge(self, last_phase: Phase[TaskOutput]) -> MergeResult | None:
        """The image list with the outputs of the units that succeeded.

        A compound task's units succeed or fail together, so one failure leaves the list as it is.

        Raises:
            ImageListError: the outputs break the rules of image lists.
        """
        if self.failures and (self.is_compound or not last_phase.outputs):
            return None
        processed = self.inputs
        if self.type == "parallel":
            urls = {unit.zarr_urls[0] for unit in last_phase.units_that(last_phase.outputs)}
            processed = [image for image in self.inputs if image["zarr_url"] in urls]
        return merge_images(
            self.job.images,
            [last_phase.outputs[index] for index in sorted(last_phase.outputs)],
            input_images=processed,
            zarr_dir=self.job.zarr_dir,
            output_types=self.task["output_types"],
        )

    def end(self, status: Status) -> RunEnd:
        """What is to be recorded of this workflow task."""
        together = self.is_compound and status == "failed"
        merged = self.merged
        return RunEnd(
            status=status,
            num_units=self.num_units,
            num_failed_units=self.num_units if together else len(self.failures),
            images=merged.images if merged and merged.images != self.job.images else None,
            num_new_images=merged.num_new if merged else 0,
            removed=merged.removed if merged else (),
            all_units_fail=together,
        )
