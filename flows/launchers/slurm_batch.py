"""A batch on its way through SLURM, as elements of job arrays, to its end."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from flows import unit_runner
from flows.launchers.base import (
    BATCH_FILE,
    RESULTS_FILE,
    Batch,
    BatchEnd,
    OnResults,
    ResultsReader,
    batch_file,
    begun_batch,
    naming,
    write_whole,
)
from flows.launchers.cluster import BusyError, SubmissionRefusedError, TooManyError
from flows.launchers.sbatch import sbatch_script
from flows.launchers.slurm_job import SlurmJob
from flows.launchers.slurm_queue import JOB_NAME, ElementState, Snapshot
from flows.launchers.slurm_state import SlurmState, Submission
from flows.launchers.transport import AnswerError, TransportError
from flows.quantities import count

# A submission whose answer was lost is known to SLURM after so long, or did not reach it.
_IN_FLIGHT_SECONDS = 5.0
_TOO_MANY_SECONDS = 5.0
_SHORTEST_PAUSE = 0.1
_MOST_TRIES = 10
_DEFAULT_MAX_ARRAY_SIZE = 1001
_TELLS = 100  # characters of what a cluster answered
# Of results, which have some 300 bytes for each unit, and an error's text. More is no result.
_RESULTS_BYTES = 1024 * 1024
_UNIT_BYTES = 16 * 1024

# States in which SLURM's jobs end for reasons that have nothing to do with what they ran.
_NOT_THEIR_FAULT = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED", "FORGOTTEN"}
# Those that units bring about which were running: others, which waited in the same job, did not.
_FAULT_OF_RUNNING = {"TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"}
# Those that tell no more than that the unit runner has ended: its own words tell why.
_BY_ITSELF = {"COMPLETED", "FAILED"}
# After a job ended minutes ago, or the controller was killed.
_FORGOTTEN = ElementState("FORGOTTEN", "SLURM does not know it any more")
# Without cgroups, only the output of a job that needed too much memory says so.
_OUT_OF_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "out-of-memory")


class _Part:
    """A batch folder there, as far as it is mirrored here.

    `units` are the names of its units by their indexes, `missing` those without a result yet.
    """

    def __init__(self, number: int, folder: Path, units: Mapping[int, str]) -> None:
        self.number = number
        self.folder = folder / f"{number:06d}"
        self.units = units
        self.missing = dict.fromkeys(units)
        self.reader = ResultsReader(self.folder / RESULTS_FILE, units)
        self.most_bytes = _RESULTS_BYTES + len(units) * _UNIT_BYTES
        self.offset = _whole_lines(self.reader.path)

    def append(self, lines: bytes) -> None:
        """Add new results to the mirrored file.

        Raises:
            AnswerError: they are more than so many units can have.
        """
        path = self.reader.path
        if self.offset + len(lines) > self.most_bytes:
            raise AnswerError(
                f"The cluster answers more than {self.most_bytes} bytes of results for {path}, "
                f"which are of {count(len(self.units), 'unit')}."
            )
        with naming(path):
            self.folder.mkdir(exist_ok=True)
            with path.open("ab") as file:
                file.write(lines)
        self.offset += len(lines)


class SlurmBatch:
    """A batch on its way through SLURM. Without its `batch`, it can only be stopped."""

    def __init__(self, job: SlurmJob, folder: Path, state: SlurmState, batch: Batch | None) -> None:
        self.job = job
        self.folder = folder
        self.state = state
        self.batch = batch
        self.there = job.there(folder)
        self.units_dir = folder.parent.parent if batch is None else batch.units_dir
        begun = begun_batch(folder)
        assert begun is not None  # it is written before anything is submitted
        units = list(begun.names.items())
        self._names = frozenset(begun.names.values())
        self._endings = (".log", ".out.json", f".attempt-{begun.attempt - 1}.log")
        self.parts = [
            _Part(number, folder, dict(part)) for number, part in enumerate(state.split(units))
        ]
        self.open = {part.number: part for part in self.parts}
        self.has_ended = asyncio.Event()
        self._last_words = ""
        self._cancelled: set[int] = set()
        self._at_once = len(self.parts)  # elements in an array, until SLURM takes only fewer
        self._woken = asyncio.Event()
        self._waits_for = ""
        self._submit_at = 0.0
        self._begun = time.monotonic()

    @property
    def is_stopped(self) -> bool:
        return (self.folder / unit_runner.STOP_FILE).exists()

    def stop(self) -> None:
        """Submit no more, and cancel what was submitted, at once."""
        (self.folder / unit_runner.STOP_FILE).touch()
        self._woken.set()

    def end(self) -> BatchEnd:
        """How it ended."""
        return BatchEnd(
            missing=tuple(index for part in self.parts for index in part.missing),
            stopped=self.is_stopped,
            stderr=self._last_words,
            reasons=self.state.reasons,
        )

    async def to_its_end(self, on_results: OnResults) -> None:
        """Submit what has no result, and hand over results, until all parts have ended.

        While the cluster does not answer, nothing is known of it: it is asked again.
        """
        for submission in self.state.submissions:
            if submission.job_id is not None:
                await self.job.on_submitted(submission.job_id)
        await self._hand_over(on_results)
        while self.open:
            self._woken.clear()
            try:
                why = await self._step(on_results)
            except (TransportError, BusyError) as error:
                why = str(error)
            self._wait_for(why)
            await on_results([])
            if self.open:
                pause = max(_SHORTEST_PAUSE, (time.monotonic() - self._begun) / 10)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), min(pause, self.job.seconds))
        self.has_ended.set()

    async def _step(self, on_results: OnResults) -> str:
        """One look at everything; why something could not be submitted, if so."""
        why = ""
        if self.is_stopped:
            await self._cancel()
        elif time.monotonic() >= self._submit_at:
            try:
                await self._submit()
            except TooManyError as error:
                why = str(error)
                self._submit_at = time.monotonic() + _TOO_MANY_SECONDS
        await self._collect(on_results)
        snapshot = await self.job.queue.latest() if self.open else None
        if snapshot is not None:
            await self._find_submissions(snapshot)
            if gone := self._gone(snapshot):
                await self._collect(on_results)  # what they did before they ended
                await self._settle({n: how for n, how in gone.items() if n in self.open})
        return why

    async def _submit(self) -> None:
        due = [number for number in self.open if self.state.submission_of(number) is None]
        if not due:
            return
        limit = await self._max_array_size()
        for first in range(0, len(self.state.sizes), limit):
            within = [number for number in due if first <= number < first + limit]
            for begin in range(0, len(within), self._at_once):
                await self._submit_array(within[begin : begin + self._at_once], offset=first)

    async def _max_array_size(self) -> int:
        """What the cluster tells, or, if it never tells it, what SLURM has by itself."""
        try:
            return await self.job.cluster.max_array_size()
        except (TransportError, BusyError):
            if time.monotonic() - self._begun < self.job.patience:
                raise
            return _DEFAULT_MAX_ARRAY_SIZE

    async def _submit_array(self, parts: list[int], offset: int) -> None:
        """Submit parts. It is written down before, lest it is not known afterwards."""
        submission = Submission(f"fractal-{uuid4().hex}", parts, offset, time.time())
        files = self._files(submission)
        await self.job.cluster.send(files)
        self.state.submissions.append(submission)
        self.state.write(self.folder)
        try:
            job_id = await self.job.cluster.submit(self.there / _script_name(submission))
        except (TooManyError, SubmissionRefusedError):
            self.state.submissions.remove(submission)
            self.state.write(self.folder)
            self._at_once = max(1, len(parts) // 2)
            raise
        await self._submitted(submission, job_id)

    async def _submitted(self, submission: Submission, job_id: int) -> None:
        # Only what SLURM answers from now on can tell that the job is gone.
        submission.job_id, submission.submitted_at = job_id, time.time()
        self.state.write(self.folder)
        await self.job.on_submitted(job_id)
        self.job.say(f"SLURM job {job_id} has {count(len(submission.parts), 'element')}.")

    def _files(self, submission: Submission) -> dict[str, bytes]:
        """What goes to the cluster, by its path in the job's folder."""
        assert self.batch is not None  # what can only be stopped is not submitted
        folder = self.there.relative_to(self.job.cluster.home)
        script = sbatch_script(
            self.job.request(self.batch),
            folder=self.there,
            batches=submission.parts,
            parallel_tasks=self.state.parallel_tasks,
            python=self.job.cluster.python,
            job_name=JOB_NAME,
            comment=submission.token,
            worker_init=self.job.worker_init,
            offset=submission.offset,
        )
        files = {
            str(folder / _script_name(submission)): script.encode(),
            str(folder / "unit_runner.py"): Path(unit_runner.__file__).read_bytes(),
        }
        units = self.state.split(self.batch.units)
        for number in submission.parts:
            part = replace(
                self.batch,
                folder=Path(self.there / f"{number:06d}"),
                units_dir=Path(self.job.there(self.units_dir)),
                units=[unit for unit in units[number] if unit.index not in self.state.reasons],
                max_parallel=self.state.parallel_tasks,
            )
            files[str(folder / f"{number:06d}" / BATCH_FILE)] = batch_file(part)
        return files

    async def _collect(self, on_results: OnResults) -> None:
        """Mirror what the parts did, and hand it over."""
        while wanted := {
            str(number): (self.there / f"{number:06d}", part.offset)
            for number, part in self.open.items()
            if self.state.submission_of(number) is not None
        }:
            found = await self.job.cluster.collect(wanted)
            if not found:
                return
            await asyncio.to_thread(self._mirror, found)
            await self._hand_over(on_results)

    def _mirror(self, found: Mapping[str, bytes]) -> None:
        """Take what the cluster sent into the job's folder: only what this batch has to have.

        Raises:
            AnswerError: it sent something else, and nothing was taken.
        """
        results = {f"results/{number}": part for number, part in self.open.items()}
        for name in found:
            if name not in results and not self._is_file_of_unit(name):
                raise AnswerError(
                    f"The cluster answers with a file {name[:_TELLS]!r}, which this job has not."
                )
        for name, content in found.items():
            if name in results:
                results[name].append(content)
            else:
                write_whole(self.units_dir / name.removeprefix("units/"), content)

    def _is_file_of_unit(self, name: str) -> bool:
        """Whether a file that is sent under this name is one that a unit of this batch has."""
        kind, _, file = name.partition("/")
        return kind == "units" and any(
            file.endswith(ending) and file.removesuffix(ending) in self._names
            for ending in self._endings
        )

    async def _hand_over(self, on_results: OnResults) -> None:
        for part in list(self.open.values()):
            while results := part.reader.read():
                await on_results(results)
                for result in results:
                    part.missing.pop(result.index, None)
            has_all = part.missing.keys() <= self.state.reasons.keys()
            if part.reader.ended or (self.batch is not None and has_all):
                del self.open[part.number]

    async def _cancel(self) -> None:
        """Cancel all that is or may be running, and wait for nothing else."""
        for number in list(self.open):
            if self.state.submission_of(number) is None:
                del self.open[number]
        found = {s.job_id for s in self.state.submissions if s.job_id is not None}
        if self.open and (ids := found - self._cancelled):
            folders = [self.there / f"{number:06d}" for number in self.open]
            await self.job.cluster.tell_to_stop(folders)
            await self.job.cluster.cancel(sorted(ids))
            self._cancelled |= ids

    async def _find_submissions(self, snapshot: Snapshot) -> None:
        """Learn what became of submissions whose answer was lost."""
        for submission in [s for s in self.state.submissions if s.job_id is None]:
            if (job_id := snapshot.arrays.get(submission.token)) is not None:
                await self._submitted(submission, job_id)
            elif snapshot.asked_at > submission.submitted_at + _IN_FLIGHT_SECONDS:
                self.state.submissions.remove(submission)

    def _gone(self, snapshot: Snapshot) -> dict[int, ElementState]:
        """The parts that SLURM does not execute any more, and how it says they ended."""
        gone = {}
        for number in self.open:
            submission = self.state.submission_of(number)
            if submission is None or submission.job_id is None:
                continue
            element = submission.token, number - submission.offset
            how = snapshot.elements.get(element, _FORGOTTEN)
            if not how.is_alive and snapshot.asked_at > submission.submitted_at:
                gone[number] = how
        return gone

    async def _settle(self, gone: Mapping[int, ElementState]) -> None:
        """Part with elements that ended without all results: the units run again, or will not."""
        if not gone:
            return
        named = {number: self._element(number) for number in gone}
        ends = await self.job.cluster.ends_of(
            (self.there / f"{number:06d}", self.there / f"slurm-{name}.out")
            for number, name in named.items()
        )
        for (number, how), (said, unfinished) in zip(gone.items(), ends, strict=True):
            self._settle_one(number, _better_told(how, said), said, unfinished)
        self.state.write(self.folder)

    def _settle_one(self, number: int, how: ElementState, said: str, unfinished: set[int]) -> None:
        what = f"SLURM job {self._element(number)} ended: {how.state}, {how.reason}."
        self._last_words = f"{what} {said}"
        missing = self.parts[number].missing.keys()
        if (submission := self.state.submission_of(number)) is not None:
            submission.settled.append(number)
        failed: set[int] = set()
        if how.state in _FAULT_OF_RUNNING:
            failed = (missing & unfinished) or set(missing)
        elif how.state not in _NOT_THEIR_FAULT | _BY_ITSELF:
            failed = set(missing)
        reason = " ".join(f"{what} {said}".split())
        self.state.reasons |= dict.fromkeys(failed, reason)
        again = missing - self.state.reasons.keys() and how.state not in _BY_ITSELF
        if again and not self.is_stopped and self.state.tries_of(number) < _MOST_TRIES:
            self.job.say(f"{what} What has no result will be submitted again.")
        else:
            del self.open[number]

    def _element(self, number: int) -> str:
        """SLURM's name of the element that executes a part."""
        submission = self.state.submission_of(number)
        assert submission is not None  # it was found to be gone
        return f"{submission.job_id}_{number - submission.offset}"

    def _wait_for(self, why: str) -> None:
        """Say once what is waited for."""
        if why and why != self._waits_for:
            self.job.say(f"Waiting for the cluster. {why}")
        if time.monotonic() >= self._submit_at:
            self._waits_for = why


def _better_told(how: ElementState, said: str) -> ElementState:
    if how.state in _BY_ITSELF and any(words in said for words in _OUT_OF_MEMORY):
        return ElementState("OUT_OF_MEMORY", how.reason)
    return how


def _script_name(submission: Submission) -> str:
    return f"{submission.token}.sh"


def _whole_lines(path: Path) -> int:
    """The size of a mirrored file, of which a line that was cut by a crash is removed."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    size = content.rfind(b"\n") + 1
    if size < len(content):
        with path.open("r+b") as file:
            file.truncate(size)
    return size
