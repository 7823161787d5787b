"""Follows a batch through SLURM to its end."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from uuid import uuid4

from flows.launchers.base import BatchEnd, OnResults
from flows.launchers.slurm.cluster import BusyError, SubmissionRefusedError, TooManyError
from flows.launchers.slurm.context import SlurmContext
from flows.launchers.slurm.mirror import Mirror
from flows.launchers.slurm.queue import JOB_NAME, ElementState, Snapshot
from flows.launchers.slurm.record import FORGOTTEN, look_up
from flows.launchers.slurm.script import sbatch_script
from flows.launchers.slurm.state import SlurmState, Submission
from flows.launchers.slurm.watch import Element, Watch
from flows.process.transport import CommandError, NoAnswerError, TransportError
from flows.programs import unit_runner
from flows.reports.quantities import count
from flows.units.batch import (
    BATCH_FILE,
    Batch,
    BegunBatch,
    DamagedFileError,
    batch_file,
    begun_batch,
)

STOP_SECONDS = 120.0
_CANCEL_AGAIN_SECONDS = 10.0
_TOO_MANY_SECONDS = 5.0
_SHORTEST_PAUSE = 0.1
_MOST_TRIES = 10
_MOST_UNKNOWN = 5
# What is answered may be disturbed for so many patiences, if the command said that it went well.
_PATIENCES_WITH_NOISE = 10
_DEFAULT_MAX_ARRAY_SIZE = 1001

# States in which SLURM's jobs end for reasons that have nothing to do with what they ran.
_NOT_THEIR_FAULT = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED", "FORGOTTEN"}
# Those that units bring about which were running: others, which waited in the same job, did not.
_FAULT_OF_RUNNING = {"TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"}
# Those that tell no more than that the unit runner has ended: its own words tell why.
_BY_ITSELF = {"COMPLETED", "FAILED"}
# Without cgroups, only the output of a job that needed too much memory says so.
_OUT_OF_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "out-of-memory")


class SlurmBatch:
    """A batch on its way through SLURM. Without its `batch`, it can only be stopped."""

    def __init__(
        self, context: SlurmContext, folder: Path, state: SlurmState, batch: Batch | None
    ) -> None:
        self.context = context
        self.folder = folder
        self.state = state
        self.batch = batch
        self.remote_folder = context.remote_path(folder)
        # Without it, as when the folder was removed, it can only be stopped.
        begun = begun_batch(folder) or BegunBatch({}, 1)
        units_dir = folder.parent.parent if batch is None else batch.units_dir
        self._mirror = Mirror(folder, units_dir, begun, state)
        self.parts = self._mirror.parts
        self.open = {part.number: part for part in self.parts}
        self.has_ended = asyncio.Event()
        self._last_words = ""
        self._watch = Watch(
            context.cluster.query_transport,
            context.patience,
            oldest=context.patience + 3 * context.queue.interval,
        )
        self._cancelled_at: dict[str, float] = {}
        self._completed_at: dict[int, float] = {}
        # How often submissions whose id is not certain were looked for, and when to do it next.
        self._looks: dict[str, tuple[int, float]] = {}
        self._left_at_submission: dict[int, int] = {}
        self._unanswered_since: float | None = None
        self._stopped_at: float | None = None
        self._at_once = len(self.parts)  # elements in an array, until SLURM takes only fewer
        self._woken = asyncio.Event()
        self._waits_for = ""
        self._submit_at = 0.0
        self._begun = time.monotonic()

    @property
    def is_stopped(self) -> bool:
        if self._stopped_at is None and (self.folder / unit_runner.STOP_FILE).exists():
            self._stopped_at = time.monotonic()
        return self._stopped_at is not None

    def stop(self) -> None:
        """Submit no more, and cancel what was submitted, at once."""
        self._stopped_at = self._stopped_at or time.monotonic()
        with contextlib.suppress(OSError):  # if the folder is gone, what runs is to be ended too
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

        While the cluster does not answer, nothing is known of it: it is asked again. If it does not
        either while the batch is stopped, what may run is left to SLURM after two minutes.

        Raises:
            NoAnswerError: for long it answered, and nothing of use.
            AnswerError, CommandError, DamagedFileError, SubmissionRefusedError: as they say.
        """
        for submission in self.state.submissions:
            if submission.job_id is not None:
                await self.context.on_submitted(submission.job_id)
        await self._hand_over(on_results)
        while self.open:
            self._woken.clear()
            self._wait_for(await self._patient_step(on_results))
            await on_results([])
            if self.open:
                pause = max(_SHORTEST_PAUSE, (time.monotonic() - self._begun) / 10)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), min(pause, self.context.seconds))

    async def _patient_step(self, on_results: OnResults) -> str:
        """One look at everything; why it could not be had, if so."""
        try:
            why = await self._step(on_results)
        except (TransportError, BusyError) as error:
            why = str(error)
        except NoAnswerError as error:
            why = str(error)
            since = self._unanswered_since = self._unanswered_since or time.monotonic()
            patience = self.context.patience * (1 if error.exit_code else _PATIENCES_WITH_NOISE)
            if time.monotonic() - since > patience and not self.is_stopped:
                raise
        except (CommandError, DamagedFileError, OSError) as error:
            if not self.is_stopped:
                raise
            why = str(error)
        else:
            self._unanswered_since = None
            return why
        if self._stopped_at is not None and time.monotonic() - self._stopped_at > STOP_SECONDS:
            self.context.say(f"What may still run of {self.folder.name} is left to SLURM. {why}")
            self.open.clear()
        return why

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
        await self._collect_if_possible(on_results)
        if not self.open:
            return why
        snapshot = await self.context.queue.latest()
        await self._confirm_submissions(snapshot)
        await self._cancel_what_was_given_up(snapshot)
        if ended := await self._watch.ended(self._elements(), snapshot):
            await self._collect_if_possible(on_results)  # what they did before they ended
            await self._settle({n: how for n, how in ended.items() if self._is_to_settle(n, how)})
        return why

    async def _submit(self) -> None:
        now = time.time()
        due = [
            number
            for number in self.open
            if self.state.submission_of(number) is None
            and self.state.again_at.get(number, 0.0) <= now
        ]
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
            return await self.context.cluster.max_array_size()
        except (TransportError, BusyError):
            if time.monotonic() - self._begun < self.context.patience:
                raise
            return _DEFAULT_MAX_ARRAY_SIZE

    async def _submit_array(self, parts: list[int], offset: int) -> None:
        """Submit parts. It is written down before, lest it is not known afterwards."""
        submission = Submission(f"fractal-{uuid4().hex}", parts, offset, time.time())
        files = self._files(submission)
        await self.context.cluster.send(files)
        self.state.submissions.append(submission)
        self._left_at_submission |= {n: self._left(n) for n in parts}
        self.state.write(self.folder)
        try:
            job_id = await self.context.cluster.submit(
                self.remote_folder / _script_name(submission)
            )
        except (TooManyError, SubmissionRefusedError):
            self.state.submissions.remove(submission)
            self.state.write(self.folder)
            self._at_once = max(1, len(parts) // 2)
            raise
        if any(job_id == each.job_id for each in self.state.submissions):
            raise BusyError(f"sbatch gives a job the number of another one: {job_id}")
        await self._submitted(submission, job_id)

    async def _submitted(self, submission: Submission, job_id: int) -> None:
        submission.job_id = job_id
        self._save()
        await self.context.on_submitted(job_id)
        self.context.say(f"SLURM job {job_id} has {count(len(submission.parts), 'element')}.")

    def _files(self, submission: Submission) -> dict[str, bytes]:
        """What goes to the cluster, by its path in the job's folder."""
        assert self.batch is not None  # what can only be stopped is not submitted
        folder = self.remote_folder.relative_to(self.context.cluster.home)
        script = sbatch_script(
            self.context.request(self.batch),
            folder=self.remote_folder,
            batches=submission.parts,
            parallel_tasks=self.state.parallel_tasks,
            python=self.context.cluster.python,
            job_name=JOB_NAME,
            comment=submission.token,
            worker_init=self.context.worker_init,
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
                folder=Path(self.remote_folder / f"{number:06d}"),
                units_dir=Path(self.context.remote_path(self.batch.units_dir)),
                units=[unit for unit in units[number] if unit.index not in self.state.reasons],
                max_parallel=self.state.parallel_tasks,
            )
            files[str(folder / f"{number:06d}" / BATCH_FILE)] = batch_file(part)
        return files

    async def _collect_if_possible(self, on_results: OnResults) -> None:
        """Collect; what is being stopped ends also if nothing can be read or written."""
        unusable = (OSError, CommandError, DamagedFileError) if self.is_stopped else ()
        with contextlib.suppress(*unusable):
            await self._collect(on_results)

    async def _collect(self, on_results: OnResults) -> None:
        """Mirror what the parts did, and hand it over."""
        while wanted := {
            str(number): (self._there(number), part.offset)
            for number, part in self.open.items()
            if self.state.submission_of(number) is not None
        }:
            found = await self.context.cluster.collect(wanted)
            if not found:
                return
            await asyncio.to_thread(self._mirror.take, found, self.open)
            await self._hand_over(on_results)

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
        """Cancel all that is or may be running; what is not known under an id, once it is."""
        for number in list(self.open):
            if self.state.submission_of(number) is None:
                del self.open[number]
        if not self.open:
            return
        for unconfirmed in self._unconfirmed():
            await self._look_for(unconfirmed)
        names = {
            str(submission.job_id)
            for number in self.open
            if (submission := self.state.submission_of(number)) and submission.is_confirmed
        }
        with contextlib.suppress(CommandError):  # what cannot be told to stop is cancelled as well
            await self.context.cluster.tell_to_stop([self._there(number) for number in self.open])
        await self._cancel_now_and_then(names)

    async def _cancel_now_and_then(self, names: Collection[str]) -> None:
        """Cancel what lives, and does so yet some time after it was cancelled before."""
        now = time.monotonic()
        due = [
            name
            for name in sorted(names)
            if now - self._cancelled_at.get(name, -_CANCEL_AGAIN_SECONDS) >= _CANCEL_AGAIN_SECONDS
        ]
        if due:
            await self.context.cluster.cancel(due)
            self._cancelled_at |= dict.fromkeys(due, now)

    def _unconfirmed(self) -> list[Submission]:
        """The submissions that are to execute something, and whose id is not certain."""
        found = {id(s): s for number in self.open if (s := self.state.submission_of(number))}
        return [submission for submission in found.values() if not submission.is_confirmed]

    async def _confirm_submissions(self, snapshot: Snapshot | None) -> None:
        """Learn the ids of submissions, above all of those whose answer was lost.

        What SLURM does not tell of for long, and what has not begun, is given up: it is made
        certain that it never begins.
        """
        for submission in self._unconfirmed():
            if snapshot is not None and (job_id := snapshot.arrays.get(submission.token)):
                await self._confirm(submission, job_id)
                continue
            now, looks = time.monotonic(), self._looks.get(submission.token)
            if looks is None:
                self._looks[submission.token] = 0, now + self.context.patience
            elif now >= looks[1]:
                self._looks[submission.token] = looks[0] + 1, now + self.context.patience / 4
                is_found = await self._look_for(submission)
                if not is_found and looks[0] and snapshot is not None:
                    await self._void(submission)

    async def _look_for(self, submission: Submission) -> bool:
        """Whether the id of a submission could be made certain."""
        folders = [self._there(number) for number in submission.parts]
        if (job_id := await self.context.cluster.begun(submission.token, folders)) is not None:
            await self._confirm(submission, job_id)
        elif submission.job_id is not None:
            transport, first = (
                self.context.cluster.query_transport,
                submission.parts[0] - submission.offset,
            )
            name = f"{submission.job_id}_{first}"
            if await look_up(transport, name, submission.token) not in (None, FORGOTTEN):
                await self._confirm(submission, submission.job_id)
        return submission.is_confirmed

    async def _confirm(self, submission: Submission, job_id: int) -> None:
        submission.is_confirmed = True
        if submission.job_id != job_id:
            await self._submitted(submission, job_id)
        else:
            self._save()

    async def _void(self, submission: Submission) -> None:
        """Give up a submission that nothing is known of."""
        parts = [number for number in submission.parts if number not in submission.settled]
        folders = [self._there(number) for number in parts]
        if (job_id := await self.context.cluster.void(submission.token, folders)) is not None:
            await self._confirm(submission, job_id)
            return
        submission.settled += parts
        for number in parts:
            self._wait_before_next(number)
        self._save()
        tries = max(self.state.tries_of(number) for number in parts)
        if tries >= _MOST_UNKNOWN and not self.is_stopped:
            raise SubmissionRefusedError(
                f"SLURM was given a job {tries} times, and never told of it. {self._waits_for}"
            )
        self.context.say("SLURM does not tell of a job that it was given: it is given up.")

    async def _cancel_what_was_given_up(self, snapshot: Snapshot | None) -> None:
        """Cancel jobs that appear after all."""
        if snapshot is None:
            return
        given_up = {s.token: s for s in self.state.submissions if set(s.parts) <= set(s.settled)}
        alive = {
            str(snapshot.arrays[token])
            for (token, _), how in snapshot.elements.items()
            if token in given_up and how.is_alive
        }
        await self._cancel_now_and_then(alive)

    def _elements(self) -> dict[int, Element]:
        """What executes the parts, as SLURM should tell of it."""
        return {
            number: Element(
                submission.token,
                number - submission.offset,
                self._element(number) if submission.is_confirmed else None,
            )
            for number in self.open
            if (submission := self.state.submission_of(number)) is not None
        }

    def _is_to_settle(self, number: int, how: ElementState) -> bool:
        """Whether nothing more is expected of a part that ended so.

        What ended well has left all its results, which a shared file system may show later.
        """
        if number not in self.open:
            return False
        if how.state != "COMPLETED":
            return True
        seen = self._completed_at.setdefault(number, time.monotonic())
        return time.monotonic() - seen >= self.context.patience

    async def _settle(self, gone: Mapping[int, ElementState]) -> None:
        """Part with elements that ended without all results: the units run again, or will not."""
        if not gone:
            return
        named = {number: self._element(number) for number in gone}
        await self._end_what_is_forgotten([n for n, how in gone.items() if how is FORGOTTEN])
        ends = await self.context.cluster.ends_of(
            (self._there(number), self.remote_folder / f"slurm-{name}.out")
            for number, name in named.items()
        )
        for (number, how), (said, unfinished) in zip(gone.items(), ends, strict=True):
            self._settle_one(number, _better_told(how, said), said, unfinished)
        self._save()

    async def _end_what_is_forgotten(self, parts: Collection[int]) -> None:
        """Make certain that parts are not executed, whatever SLURM tells of them."""
        if not parts:
            return
        await self.context.cluster.cancel([self._element(number) for number in parts])
        for number in parts:
            submission = self.state.submission_of(number)
            assert submission is not None
            await self.context.cluster.void(submission.token, [self._there(number)])

    def _settle_one(self, number: int, how: ElementState, said: str, unfinished: set[int]) -> None:
        what = f"SLURM job {self._element(number)} ended: {how.state}, {how.reason}."
        self._completed_at.pop(number, None)
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
            seconds = 0.0 if failed else self._wait_before_next(number)
            when = f" in {seconds:.0f} s" if seconds else ""
            self.context.say(f"{what} What has no result will be submitted again{when}.")
        else:
            del self.open[number]

    def _wait_before_next(self, number: int) -> float:
        """Put off the next submission of a part, unless the last one led to something; how long.

        Each time for twice as long.
        """
        if self._left(number) < self._left_at_submission.get(number, 0):
            return 0.0
        seconds = self.context.patience * 2.0 ** (self.state.tries_of(number) - 1)
        self.state.again_at[number] = time.time() + seconds
        return seconds

    def _left(self, number: int) -> int:
        """How many units of a part have neither a result nor a reason why not."""
        return len(self.parts[number].missing.keys() - self.state.reasons.keys())

    def _save(self) -> None:
        """Write down what is known; what is being stopped is, also if it cannot be written."""
        with contextlib.suppress(*((OSError,) if self.is_stopped else ())):
            self.state.write(self.folder)

    def _there(self, number: int) -> PurePosixPath:
        """The folder of a part on the cluster."""
        return self.remote_folder / f"{number:06d}"

    def _element(self, number: int) -> str:
        """SLURM's name of the element that executes a part."""
        submission = self.state.submission_of(number)
        assert submission is not None  # it was found to be gone
        return f"{submission.job_id}_{number - submission.offset}"

    def _wait_for(self, why: str) -> None:
        """Say once what is waited for."""
        if why and why != self._waits_for:
            self.context.say(f"Waiting for the cluster. {why}")
        if time.monotonic() >= self._submit_at:
            self._waits_for = why


def _better_told(how: ElementState, said: str) -> ElementState:
    if how.state in _BY_ITSELF and any(words in said for words in _OUT_OF_MEMORY):
        return ElementState("OUT_OF_MEMORY", how.reason)
    return how


def _script_name(submission: Submission) -> str:
    return f"{submission.token}.sh"
