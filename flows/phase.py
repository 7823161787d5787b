"""The units of one phase of a workflow task while they run."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import history
from flows.history import EndedUnit
from flows.job_run import JobRun, JobStoppedError
from flows.launchers.base import Batch, BatchEnd, BatchUnit, UnitResult
from flows.progress import Progress
from flows.units import PlannedUnit, UnitPlan
from fractal_models.images import InitOutput, InvalidTaskOutput, TaskOutput

# How often ended units are written to the database and to the progress artifact.
_RECORD_SECONDS = 1.0

Output = TypeVar("Output", InitOutput, TaskOutput)


class Phase(Generic[Output]):
    """Runs the units of a plan, reads their outputs with `parse`, and records them in bulk.

    After `run`, every unit is either in `outputs` or in `failures` (why), both by unit index.
    """

    def __init__(
        self,
        job: JobRun,
        history_run_id: int,
        plan: UnitPlan,
        units_dir: Path,
        parse: Callable[[bytes | None], Output],
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.outputs: dict[int, Output] = {}
        self.failures: dict[int, str] = {}
        self._job = job
        self._history_run_id = history_run_id
        self._units_dir = units_dir
        self._parse: Callable[[bytes | None], Output] = parse
        self._progress = progress
        self._ids: list[int] = []
        self._unrecorded: dict[int, EndedUnit] = {}
        self._recorded_at = time.monotonic()

    async def run(self, *, point_images: bool) -> None:
        """Run all units; with `point_images`, they become the latest units of their images.

        Raises:
            JobStoppedError: the job was told to stop; what had ended is recorded.
        """
        if not self.plan.units:
            return
        async with self._job.sessions() as session:
            self._ids = await history.create_units(
                session, self._history_run_id, self.plan.units, self._units_dir
            )
            if point_images:
                await history.point_images_to_units(session, self._history_run_id)
        batch = self._batch()
        count = len(batch.units)
        named = run_batch.with_options(
            task_run_name=f"{self.plan.component}: {count} unit{'s' if count > 1 else ''}"
        )
        async with self._job.batch(batch.folder):
            end = await named(self, batch)
        if end.stopped or self._job.stopping:
            raise JobStoppedError("The job was stopped.")

    async def follow(self, batch: Batch) -> BatchEnd:
        """Launch a batch and collect its results to its end."""
        end = await self._job.launcher.run(batch, self._collect)
        reason = "stopped before it began" if end.stopped else f"lost with its runner. {end.stderr}"
        for index in end.missing:
            self._fail(index, reason.strip(), result=None)
        await self._record()
        return end

    def units_that(self, indices: Iterable[int]) -> list[PlannedUnit]:
        """The units with these indices."""
        return [self.plan.units[index] for index in indices]

    def _batch(self) -> Batch:
        return Batch(
            folder=self._units_dir / "batches" / self.plan.component,
            units_dir=self._units_dir,
            command=tuple(self.plan.command),
            common_args=self.plan.common_args,
            units=[BatchUnit(unit.index, unit.name, unit.args) for unit in self.plan.units],
            max_parallel=self._job.parallel_tasks,
        )

    async def _collect(self, results: list[UnitResult]) -> None:
        for result in results:
            if result.succeeded:
                self._read_output(result)
            else:
                self._fail(result.index, describe_failure(result), result)
        if time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            await self._record()

    def _read_output(self, result: UnitResult) -> None:
        unit = self.plan.units[result.index]
        path = self._units_dir / f"{unit.name}.out.json"
        try:
            self.outputs[unit.index] = self._parse(path.read_bytes() if result.has_output else None)
        except (InvalidTaskOutput, OSError) as error:
            with history.log_path(self._units_dir, unit).open("a") as log:
                log.write(f"\nThe unit failed: {error}\n")
            self._fail(unit.index, str(error), result)
        else:
            self._unrecorded[unit.index] = EndedUnit(self._ids[unit.index], True, result)

    def _fail(self, index: int, reason: str, result: UnitResult | None) -> None:
        self.failures[index] = reason
        self._unrecorded[index] = EndedUnit(self._ids[index], False, result)

    async def _record(self) -> None:
        ended, self._unrecorded = self._unrecorded, {}
        self._recorded_at = time.monotonic()
        if not ended:
            return
        async with self._job.sessions() as session:
            await history.record_units(session, ended.values())
        await self._progress.advance(len(ended))


@task(name="batch", cache_policy=NO_CACHE, persist_result=False)
async def run_batch(phase: Phase[Output], batch: Batch) -> BatchEnd:
    """One batch as a Prefect task run. (`phase` is opaque to Prefect, which looks into data.)"""
    return await phase.follow(batch)


def describe_failure(result: UnitResult) -> str:
    """Why a unit failed, as a phrase."""
    if result.error is not None:
        return result.error
    if result.signal is not None:
        return f"killed by signal {result.signal}"
    return f"exit code {result.exit_code}"


async def last_log_lines(path: Path, lines: int = 5) -> str:
    """The end of a unit's log; empty if there is none."""
    if not path.exists():
        return ""
    text = await asyncio.to_thread(path.read_text, errors="replace")
    return "\n".join(text.strip().splitlines()[-lines:])
