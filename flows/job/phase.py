"""The units of one phase of a workflow task while they run."""

import asyncio
import errno
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.job.run import JobRun, JobStoppedError
from flows.launchers.base import BatchEnd
from flows.programs.cluster_files import LONGEST_OUTPUT
from flows.records import units as unit_records
from flows.records.units import EndedUnit
from flows.reports.artifacts import Progress
from flows.reports.quantities import count
from flows.reports.sentences import phrase, sentence, words_of
from flows.reports.text import printable
from flows.units.batch import Batch, BatchUnit, units_of_batch
from flows.units.left_files import add_last_line, read_left
from flows.units.plan import PlannedUnit, UnitPlan
from flows.units.results import UnitResult, results_of
from fractal_models.images import InitOutput, InvalidTaskOutput, TaskOutput
from fractal_models.schemas.meta import Retry
from fractal_models.settings import get_settings

logger = logging.getLogger(__name__)

# How often ended units are written to the database.
_RECORD_SECONDS = 0.5
_TOLD_REASONS = 3

Output = TypeVar("Output", InitOutput, TaskOutput)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a unit failed in an attempt. Without a `result` the unit never ran, or was lost."""

    reason: str
    attempt: int
    result: UnitResult | None

    @property
    def exit(self) -> str:
        """The exit code or the signal, if there was one."""
        if self.result is None:
            return ""
        code, signal = self.result.exit_code, self.result.signal
        return str(code) if signal is None else f"signal {signal}"


class Phase(Generic[Output]):
    """Runs the units of a plan, reads their outputs with `parse`, and records them in bulk.

    Units run in batches, one per attempt: the first has all units, each later one those that
    failed. `meta` is what the task says about the resources that the units need, and `why_memory`
    why they get as much memory, if that is left to what earlier ones needed; if the units are
    `warm`, imports are made once for all of them. After `run`, every unit is either in `outputs` or
    in `failures`, both by unit index; `warned` has the units with warnings in their latest log.
    """

    def __init__(
        self,
        job: JobRun,
        title: str,
        plan: UnitPlan,
        meta: Mapping[str, Any],
        units_dir: Path,
        parse: Callable[[bytes | None], Output],
        progress: Progress,
        *,
        warm: bool,
        why_memory: str | None = None,
    ) -> None:
        self.plan = plan
        self.outputs: dict[int, Output] = {}
        self.failures: dict[int, Failure] = {}
        self.warned: set[int] = set()
        self.peak_rss_kb = 0  # of units that succeeded
        self._job = job
        self._title = f"{title}, {plan.component}"
        self._meta = meta
        self._units_dir = units_dir
        self._parse: Callable[[bytes | None], Output] = parse
        self._progress = progress
        self._warm = warm
        self._why_memory = why_memory
        self._why_cold: set[str] = set()  # that were told
        self._ids: list[int] = []
        self._number = 1  # of the current attempt
        self._is_last_attempt = True
        self._ended: set[int] = set()  # in the current attempt
        self._unrecorded: dict[int, EndedUnit] = {}
        self._recorded_at = time.monotonic()
        self._output_bytes = 0  # that were read
        self._end: BatchEnd | Exception = BatchEnd((), stopped=False, stderr="")  # of the latest

    async def run(self, units: list[int], retry: Retry) -> None:
        """Run all units. `units` are their ids in the database.

        Raises:
            JobStoppedError: the job was told to stop; the units that had ended are recorded.
            DamagedFileError, OSError: the files of a batch cannot be read or written.
        """
        self._ids = units
        waiting = list(self.plan.units)
        for attempt in range(1, retry.max + 2):
            self._ended = set()
            self._number, self._is_last_attempt = attempt, attempt > retry.max
            batch = self._batch(waiting, attempt)
            ran_again = units_of_batch(self._batch(waiting, attempt + 1).folder)
            if ran_again is not None:
                await self._read_again(batch, ran_again)
            else:
                await self._attempt(batch, retry)
            waiting = self.units_that(sorted(self.failures))
            if not waiting:
                return

    async def _attempt(self, batch: Batch, retry: Retry) -> None:
        """Run the batch of an attempt; before any but the first attempt, wait for the delay."""
        has_begun = units_of_batch(batch.folder) is not None
        units = count(len(batch.units), "unit")
        if not has_begun:
            await self._announce(batch, units, retry)
        if self._job.stopping and not has_begun:
            await self._record_failures()
            raise JobStoppedError(self._job.why_it_stops)
        if batch.attempt > 1:
            async with self._job.database() as session:
                ids = [self._ids[unit.index] for unit in batch.units]
                await unit_records.begin_attempt(session, ids, batch.attempt)
        named = run_batch.with_options(task_run_name=f"{self._title}: {units}")
        async with self._job.batch(batch.folder):
            await named(partial(self.follow_to_its_end, batch))
        if isinstance(self._end, Exception):
            raise self._end
        end = self._end
        self._tell_why_cold(end)
        all_succeeded = self.outputs.keys() >= {unit.index for unit in batch.units}
        if (end.stopped or self._job.stopping) and not all_succeeded:
            raise JobStoppedError(self._job.why_it_stops or "Its units were stopped.")

    def _tell_why_cold(self, end: BatchEnd) -> None:
        """Say, once, why imports were not made once for all units."""
        reasons = {each.why_cold for each in end.imports if each.why_cold is not None}
        for why in sorted(reasons - self._why_cold)[:_TOLD_REASONS]:
            self._job.say(f"{self._title}: each unit imports for itself, because {phrase(why)}.")
        self._why_cold |= reasons

    async def _announce(self, batch: Batch, units: str, retry: Retry) -> None:
        """Say how a batch will run; before any but the first attempt, wait for the delay."""
        place = self._job.launcher.describe(batch)
        if batch.attempt == 1:
            why = "" if self._why_memory is None else f" ({self._why_memory})"
            self._job.say(f"{self._title}: {units}, {place}{why}.")
            return
        self._job.say(
            f"{self._title}: {units} failed and will run again in {retry.delay_seconds:g} s "
            f"(attempt {batch.attempt} of {retry.max + 1}), {place}.",
            logging.WARNING,
        )
        await self._job.pause(retry.delay_seconds)

    async def _read_again(self, batch: Batch, ran_again: set[int]) -> None:
        """Read the results of an earlier attempt, after an interruption during a later attempt.

        The units `ran_again` failed in that earlier attempt. Their files are now those of the later
        one.
        """
        async for results in _results_of(batch):
            await self._collect([result for result in results if result.index not in ran_again])
        for index in ran_again:
            self.failures[index] = Failure("failed in an attempt before", batch.attempt, None)

    async def follow_to_its_end(self, batch: Batch) -> State[Any] | None:
        """Run a batch to its end, and keep how it ended, or the error that broke it off.

        The caller raises the error, so that it is told only once.
        """
        try:
            self._end = await self._follow(batch)
        except Exception as error:
            self._end = error
            return Failed(message=words_of(error))
        return None

    async def _follow(self, batch: Batch) -> BatchEnd:
        """Launch a batch, or find it running, and collect its results until it ends.

        If its runner died, the batch is launched again for the units without a result, as long as
        new units end; after `max_restarts` further launches in a row without one, these units are
        given up.
        """
        try:
            end = await self._run_to_end(batch)
            for index in end.missing:
                await self._lose(index, end)
            self._job.note_executor_errors(set(end.reasons.values()))
            if end.stopped:
                await self._record_failures()
            await self._record()
        except Exception:
            await self._job.launcher.stop(batch.folder)  # its units must not go on unrecorded
            await self._record()
            raise
        return end

    async def _lose(self, index: int, end: BatchEnd) -> None:
        """Record as failed a unit that has no result."""
        if (reason := end.reasons.get(index)) is not None:
            await asyncio.to_thread(self._add_to_log, index, reason)
        elif end.stopped:
            reason = "stopped before it ended"
        self._fail(index, reason or f"lost. {_words(end)}", result=None)

    async def _run_to_end(self, batch: Batch) -> BatchEnd:
        tries_left = self._job.max_restarts
        while not self._job.stopping:
            known = len(self._ended)
            end = await self._job.launcher.run(batch, self._collect)
            if len(self._ended) > known:
                tries_left = self._job.max_restarts
            again = [index for index in end.missing if index not in end.reasons]
            if not again or end.stopped or not tries_left:
                return end
            tries_left -= 1
            self._job.say(
                f"{self._title}: {count(len(again), 'unit')} did not end with their runner, and "
                f"will be launched again. {_words(end)}",
                logging.WARNING,
            )
        return await self._stop(batch)

    async def _stop(self, batch: Batch) -> BatchEnd:
        """Stop a batch that may be running, and collect its results."""
        await self._job.launcher.stop(batch.folder)
        async for results in _results_of(batch):
            await self._collect(results)
        missing = tuple(unit.index for unit in batch.units if unit.index not in self._ended)
        return BatchEnd(missing=missing, stopped=True, stderr="")

    def units_that(self, indices: Iterable[int]) -> list[PlannedUnit]:
        """The units with these indexes."""
        return [self.plan.units[index] for index in indices]

    @property
    def asked_memory(self) -> int | None:
        """The memory (MiB) asked for each unit in the first attempt; None if none was asked for."""
        if not self.plan.units:
            return None
        return self._job.launcher.memory_of(self._batch(self.plan.units[:1], attempt=1))

    def _batch(self, units: list[PlannedUnit], attempt: int) -> Batch:
        name = self.plan.component if attempt == 1 else f"{self.plan.component}-{attempt}"
        return Batch(
            folder=self._units_dir / "batches" / name,
            units_dir=self._units_dir,
            command=tuple(self.plan.command),
            common_args=self.plan.common_args,
            units=[BatchUnit(unit.index, unit.name, unit.args) for unit in units],
            max_parallel=self._job.parallel_tasks,
            env=self._job.variables_of_units,
            attempt=attempt,
            warm=self._warm,
            meta=self._meta,
            grows=self._why_memory is not None,
        )

    async def _collect(self, results: list[UnitResult]) -> None:
        if results:
            ends = await asyncio.to_thread(lambda: [self._end_of(result) for result in results])
            for result, end in zip(results, ends, strict=True):
                self._ended.add(result.index)
                (self.warned.add if result.has_warnings else self.warned.discard)(result.index)
                if isinstance(end, str):
                    self._fail(result.index, end, result)
                else:
                    self._succeed(result, end)
        if time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            await self._record()

    def _end_of(self, result: UnitResult) -> Output | str:
        """The output of a unit that succeeded, or the reason why it failed."""
        if not result.succeeded:
            return describe_failure(result)
        try:
            return self._parse(self._read_output(result))
        except (InvalidTaskOutput, OSError) as error:
            why = words_of(error)
            self._add_to_log(result.index, f"The unit failed: {why}")
            return why

    def _read_output(self, result: UnitResult) -> bytes | None:
        """The output that a unit wrote; None if it wrote none.

        The outputs of all units of a phase share one limit (FRACTAL_MAX_OUTPUT_MB).
        """
        if not result.has_output:
            return None
        most = get_settings().max_output_mb << 20
        left = min(most - self._output_bytes, LONGEST_OUTPUT)
        path = self._units_dir / f"{self.plan.units[result.index].name}.out.json"
        try:
            content = read_left(path, left, below=self._job.folder.path)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            raise InvalidTaskOutput(
                f"The task's output {path} is too large: a unit may write "
                f"{LONGEST_OUTPUT >> 20} MiB, all units of one phase {most >> 20:,} MiB together "
                "(FRACTAL_MAX_OUTPUT_MB)."
            ) from error
        self._output_bytes += len(content)
        return content

    def _add_to_log(self, index: int, line: str) -> None:
        """Add a line at the end of a unit's log, if there is a log that can be written."""
        path = unit_records.log_path(self._units_dir, self.plan.units[index])
        try:
            add_last_line(path, line, below=self._job.folder.path)
        except OSError as error:
            logger.warning("The log of a unit is left as it is: %s", error)

    def _succeed(self, result: UnitResult, output: Output) -> None:
        self.outputs[result.index] = output
        self.failures.pop(result.index, None)  # of an attempt before
        self.peak_rss_kb = max(self.peak_rss_kb, result.max_rss_kb)
        self._unrecorded[result.index] = EndedUnit(
            self._ids[result.index],
            "submitted" if self.plan.component == "init" else "done",
            result,
        )

    def _fail(self, index: int, reason: str, result: UnitResult | None) -> None:
        self.failures[index] = Failure(reason, self._number, result)
        if self._is_last_attempt:
            self._unrecorded[index] = self._failed(index)

    def _failed(self, index: int) -> EndedUnit:
        return EndedUnit(self._ids[index], "failed", self.failures[index].result)

    async def _record_failures(self) -> None:
        """Record all ended units, also failed ones that would have run again if the job went on."""
        self._unrecorded |= {index: self._failed(index) for index in self.failures}
        await self._record()

    async def _record(self) -> None:
        self._recorded_at = time.monotonic()
        if not self._unrecorded:
            return
        async with self._job.database() as session:
            await unit_records.record_units(session, self._job.id, self._unrecorded.values())
        self._progress.advance(len(self._unrecorded))
        self._unrecorded = {}


async def _results_of(batch: Batch) -> AsyncIterator[list[UnitResult]]:
    """All results in a batch's folder."""
    found = results_of(batch.folder)
    while results := await asyncio.to_thread(next, found, None):
        yield results


@task(name="batch", cache_policy=NO_CACHE, persist_result=False)
async def run_batch(follow: Callable[[], Awaitable[State[Any] | None]]) -> State[Any] | None:
    """Run one batch as a Prefect task run.

    Prefect looks several times through parameters that are data, as the units of a batch, but not
    into a function.
    """
    return await follow()


def describe_failure(result: UnitResult) -> str:
    """The reason why a unit failed, as a phrase."""
    if result.error is not None:
        return result.error
    if result.signal is not None:
        return f"killed by signal {result.signal}"
    return f"exit code {result.exit_code}"


def _words(end: BatchEnd) -> str:
    """What the runner of a batch said last, as a sentence."""
    return sentence(printable(end.stderr)) or "The unit runner ended early and left no word."
