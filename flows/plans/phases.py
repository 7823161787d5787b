"""The plan of one phase of a workflow task: where its units run, and what they would take. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.launchers.slurm.partitions import Partition, misfits
from flows.launchers.slurm.right_size import Measured, is_auto, right_size
from flows.launchers.slurm.sizing import request_of, sizing_of
from flows.plans import estimates
from flows.records.needs import Need
from flows.units.plan import Component, meta_name
from fractal_models.errors import FractalError
from fractal_models.schemas.meta import retry_of, warm_units_of
from fractal_models.schemas.plan import PhasePlan
from fractal_models.schemas.slurm import JobRunnerConfigSLURM, slurm_meta_of


@dataclass(frozen=True)
class Site:
    """Where units run: `units_at_once` on this machine, or on a cluster, if `slurm` is given."""

    units_at_once: int
    slurm: JobRunnerConfigSLURM | None = None
    account: str | None = None
    cache_dir: str | None = None
    partitions: Mapping[str, Partition] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a phase; their number may be unknown, or that of an earlier run."""

    component: Component
    number: int | None
    is_estimated: bool = False


def plan_phase(
    site: Site,
    units: Units,
    meta: dict[str, Any],
    manifest: Mapping[str, Any],
    need: Need | None,
) -> tuple[PhasePlan, list[str]]:
    """The plan of a phase, and what is wrong with it, as sentences.

    `meta` is what its workflow task says of the resources of units, `manifest` what the task itself
    does, `need` what earlier ones needed.
    """
    plan = PhasePlan(
        component=units.component,
        units=units.number,
        units_are_estimated=units.is_estimated and units.number is not None,
        batches=None if units.number is None else min(units.number, 1),
        units_at_once=None if units.number is None else min(units.number, site.units_at_once),
    )
    if site.slurm is None:
        problems = _meta_problems(meta, units.component)
    else:
        if is_auto(site.slurm, meta, manifest):
            known = None if need is None else Measured(need.peak_rss_kb.highest, need.num_units)
            meta = right_size(site.slurm, meta, manifest, known).meta
        problems = _put_into_slurm_jobs(plan, site, site.slurm, meta)
    if need is not None:
        _estimate(plan, need)
    if units.number == 0:
        plan.wall_seconds = plan.cpu_seconds = estimates.NOTHING
    return plan, problems


def _meta_problems(meta: dict[str, Any], component: Component) -> list[str]:
    """What is wrong with a `meta` where no SLURM reads it."""
    try:
        retry_of(meta)
        warm_units_of(meta)
    except ValueError as error:
        return [f"{meta_name(component)} is wrong: {error}"]
    return []


def _put_into_slurm_jobs(
    plan: PhasePlan, site: Site, config: JobRunnerConfigSLURM, meta: dict[str, Any]
) -> list[str]:
    """Write into a plan what SLURM is asked for. Returns why that does not fit."""
    try:
        slurm_meta = slurm_meta_of(meta)
    except ValueError:
        return []  # which the submission would be refused for
    try:
        request = request_of(config, slurm_meta, site.account, cache_dir=site.cache_dir)
        sizing = sizing_of(plan.units or 1, config, slurm_meta, request)
    except FractalError as error:
        return [str(error)]
    plan.cpus, plan.memory_mb = request.cpus_per_task, request.mem
    plan.time, plan.partition = request.time, request.partition
    if plan.units:
        plan.batches = len(sizing.sizes)
        jobs_at_once = min(plan.batches, request.max_running_jobs or plan.batches)
        plan.units_at_once = min(plan.units, jobs_at_once * sizing.parallel_tasks)
    return misfits(request, sizing.parallel_tasks, site.partitions)


def _estimate(plan: PhasePlan, need: Need) -> None:
    """Write into a plan what its units may take."""
    plan.measured_units, plan.measured_memory_mb = need.num_units, estimates.memory_mb(need)
    if plan.units and plan.units_at_once:
        plan.wall_seconds = estimates.wall_seconds(plan.units, plan.units_at_once, need)
        plan.cpu_seconds = estimates.cpu_seconds(plan.units, need)
