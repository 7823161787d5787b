"""The units of one phase of a workflow task while they run."""

import time
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Generic, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import history
from flows.history import EndedUnit
from flows.job_run import JobRun, JobStoppedError
from flows.last_words import printable
from flows.launchers.base import (
    BATCH_FILE,
    RESULTS_FILE,
    Batch,
    BatchEnd,
    BatchUnit,
    ResultsReader,
    UnitResult,
)
from flows.progress import Progress
from flows.units import PlannedUnit, UnitPlan
from fractal_models.images import InitOutput, InvalidTaskOutput, TaskOutput
from fractal_models.schemas.meta import Retry

# How often ended units are written to the database.
_RECORD_SECONDS = 1.0

Output = TypeVar("Output", InitOutput, TaskOutput)


class Phase(Generic[Output]):
    """Runs the units of a plan, reads their outputs with `parse`, and records them in bulk.

    Units run in batches, one per attempt: the first has all units, the next ones those that failed.
    After `run`, every unit is either in `outputs` or in `failures` (why), both by unit index.
    """

    def __init__(
        self,
        job: JobRun,
        title: str,
        plan: UnitPlan,
        units_dir: Path,
        parse: Callable[[bytes | None], Output],
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.outputs: dict[int, Output] = {}
        self.failures: dict[int, str] = {}
        self._job = job
        self._title = f"{title}, {plan.component}"
        self._units_dir = units_dir
        self._parse: Callable[[bytes | None], Output] = parse
        self._progress = progress
        self._ids: list[int] = []
        self._is_last_attempt = True
        self._ended: set[int] = set()  # in the current attempt
        self._unrecorded: dict[int, EndedUnit] = {}
        self._recorded_at = time.monotonic()

    async def run(self, units: list[int], retry: Retry) -> None:
        """Run all units, which have these ids in the database.

        Raises:
            JobStoppedError: the job was told to stop; what had ended is recorded.
            DamagedFileError, OSError: the files of a batch cannot be read or written.
        """
        self._ids = units
        waiting = list(self.plan.units)
        for attempt in range(1, retry.max + 2):
            self._is_last_attempt = attempt > retry.max
            await self._attempt(waiting, attempt, retry)
            waiting = self.units_that(sorted(self.failures))
            if not waiting:
                return

    async def _attempt(self, units: list[PlannedUnit], attempt: int, retry: Retry) -> None:
        """Run units; if this is not the first time, after the delay."""
        self._ended = set()
        batch = self._batch(units, attempt)
        if (self._batch([], attempt + 1).folder / BATCH_FILE).exists():
            await self._read_again(batch)
            return
        if attempt > 1 and not (batch.folder / BATCH_FILE).exists():
            self._job.say(
                f"{self._title}: {_count(units)} failed and will run again in "
                f"{retry.delay_seconds:g} s (attempt {attempt} of {retry.max + 1})."
            )
            await self._job.pause(retry.delay_seconds)
            async with self._job.database() as session:
                ids = [self._ids[unit.index] for unit in units]
                await history.begin_attempt(session, ids, attempt)
        named = run_batch.with_options(task_run_name=f"{self._title}: {_count(units)}")
        async with self._job.batch(batch.folder):
            end = await named(self, batch)
        if end.stopped or self._job.stopping:
            raise JobStoppedError("The job was stopped.")

    async def _read_again(self, batch: Batch) -> None:
        """Collect the results of an attempt which, before an interruption, led to the next one."""
        reader = ResultsReader(batch.folder / RESULTS_FILE)
        while results := reader.read():
            await self._collect(results)
        for unit in batch.units:
            if unit.index not in self._ended:
                self._fail(unit.index, "lost with its unit runner", result=None)

    async def follow(self, batch: Batch) -> BatchEnd:
        """Launch a batch, or find it running, and collect its results to its end.

        A batch whose runner died is launched again for the units that it left, as long as that
        leads to anything.
        """
        try:
            end = await self._run_to_end(batch)
            lost = f"lost. {_words(end)}"
            for index in end.missing:
                self._fail(index, "stopped before it began" if end.stopped else lost, result=None)
            await self._record()
        except Exception:
            await self._job.launcher.stop(batch.folder)  # its units must not go on unrecorded
            raise
        return end

    async def _run_to_end(self, batch: Batch) -> BatchEnd:
        tries_left = self._job.max_restarts
        while True:
            known = len(self._ended)
            end = await self._job.launcher.run(batch, self._collect)
            if len(self._ended) > known:
                tries_left = self._job.max_restarts
            if not end.missing or end.stopped or self._job.stopping or not tries_left:
                return end
            tries_left -= 1
            self._job.say(
                f"{self._title}: {_count(end.missing)} did not end with their runner, and will be "
                f"launched again. {_words(end)}"
            )

    def units_that(self, indices: Iterable[int]) -> list[PlannedUnit]:
        """The units with these indices."""
        return [self.plan.units[index] for index in indices]

    def _batch(self, units: list[PlannedUnit], attempt: int) -> Batch:
        name = self.plan.component if attempt == 1 else f"{self.plan.component}-{attempt}"
        return Batch(
            folder=self._units_dir / "batches" / name,
            units_dir=self._units_dir,
            command=tuple(self.plan.command),
            common_args=self.plan.common_args,
            units=[BatchUnit(unit.index, unit.name, unit.args) for unit in units],
            max_parallel=self._job.parallel_tasks,
            attempt=attempt,
        )

    async def _collect(self, results: list[UnitResult]) -> None:
        for result in results:
            self._ended.add(result.index)
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
            self.failures.pop(unit.index, None)  # of an attempt before
            self._unrecorded[unit.index] = EndedUnit(
                self._ids[unit.index],
                "submitted" if self.plan.component == "init" else "done",
                result,
            )

    def _fail(self, index: int, reason: str, result: UnitResult | None) -> None:
        self.failures[index] = reason
        if self._is_last_attempt or self._job.stopping:
            self._unrecorded[index] = EndedUnit(self._ids[index], "failed", result)

    async def _record(self) -> None:
        self._recorded_at = time.monotonic()
        if not self._unrecorded:
            return
        async with self._job.database() as session:
            await history.record_units(session, self._job.id, self._unrecorded.values())
        self._progress.advance(len(self._unrecorded))
        self._unrecorded = {}


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


def _words(end: BatchEnd) -> str:
    """What the runner of a batch said last."""
    return printable(end.stderr).strip() or "The unit runner ended early and left no word."


def _count(units: Sized) -> str:
    return f"{len(units)} unit{'' if len(units) == 1 else 's'}"
