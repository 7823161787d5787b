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
from flows.launchers.slurm.pending import Pending
from flows.launchers.slurm.queue import JOB_NAME, ElementState, Snapshot
from flows.launchers.slurm.record import FORGOTTEN
from flows.launchers.slurm.right_size import Growth
from flows.launchers.slurm.script import SlurmRequest, sbatch_script
from flows.launchers.slurm.state import SlurmState, Submission
from flows.launchers.slurm.submitter import Submitter
from flows.launchers.slurm.verdict import OF_THE_CLUSTER, better_told, verdict_on
from flows.launchers.slurm.watch import Element, Watch
from flows.process.transport import CommandError, NoAnswerError, TransportError
from flows.programs import unit_runner, warm_process
from flows.reports.quantities import count, duration, memory
from flows.units.batch import (
    BATCH_FILE,
    Batch,
    BegunBatch,
    DamagedFileError,
    batch_file,
    begun_batch,
)
from fractal_models.schemas.slurm import slurm_seconds

STOP_SECONDS = 120.0
_CANCEL_AGAIN_SECONDS = 10.0
_SHORTEST_PAUSE = 0.1
# Tries in a row that bring nothing, of which the cluster does not say that it is to blame.
_MOST_TRIES = 10
_MOST_UNKNOWN = 5
_LONGEST_WAIT = 3600.0  # before a part is submitted again
# Why SLURM jobs wait that ask for more time than they can ever have.
_TOO_LONG = {
    "PartitionTimeLimit",
    "AssocMaxWallDurationPerJobLimit",
    "QOSMaxWallDurationPerJobLimit",
}
# If a command exits with 0, its answer may be disturbed for this many times `patience` seconds.
_PATIENCES_WITH_NOISE = 10
_DEFAULT_MAX_ARRAY_SIZE = 1001


class SlurmBatch:
    """A batch while it passes through SLURM. Without `batch`, it can only be stopped."""

    def __init__(
        self, context: SlurmContext, folder: Path, state: SlurmState, batch: Batch | None
    ) -> None:
        self.context = context
        self.folder = folder
        self.state = state
        self.batch = batch
        self.remote_folder = context.remote_path(folder)
        # Without a `batch.json`, as when the folder was removed, the batch can only be stopped.
        begun = begun_batch(folder) or BegunBatch({}, 1)
        units_dir = folder.parent.parent if batch is None else batch.units_dir
        self._mirror = Mirror(folder, units_dir, begun, state)
        self.parts = self._mirror.parts
        self.open = {part.number: part for part in self.parts}
        self.has_ended = asyncio.Event()
        self._last_words = ""
        self._watch = Watch(
            context.cluster.look_up,
            context.patience,
            oldest=context.patience + 3 * context.queue.interval,
        )
        self._pending = Pending(context.patience)
        self._cancelled_at: dict[tuple[str, str], float] = {}
        self._completed_at: dict[int, float] = {}
        # By token: how often a submission without a certain id was looked for, and the time of the
        # next look.
        self._looks: dict[str, tuple[int, float]] = {}
        self._unanswered_since: float | None = None
        self._stopped_at: float | None = None
        self._submitter = Submitter(self._submit_array, self._max_array_size, len(self.parts))
        self._woken = asyncio.Event()
        self._waits_for = ""
        self._begun = time.monotonic()

    @property
    def is_stopped(self) -> bool:
        if self._stopped_at is None and (self.folder / unit_runner.STOP_FILE).exists():
            self._stopped_at = time.monotonic()
        return self._stopped_at is not None

    def stop(self) -> None:
        """Submit no more parts, and cancel at once what was submitted."""
        self._stopped_at = self._stopped_at or time.monotonic()
        with contextlib.suppress(OSError):  # if the folder is gone, what runs is to be ended too
            (self.folder / unit_runner.STOP_FILE).touch()
        self._woken.set()

    def end(self) -> BatchEnd:
        """How the batch ended."""
        return BatchEnd(
            missing=tuple(index for part in self.parts for index in part.missing),
            stopped=self.is_stopped,
            stderr=self._last_words,
            reasons=self.state.reasons,
            imports=tuple(part.reader.imports for part in self.parts if part.reader.imports),
        )

    async def to_its_end(self, on_results: OnResults) -> None:
        """Submit the units without a result, and hand over results, until all parts have ended.

        If the cluster does not answer, nothing is known about the batch, and the cluster is asked
        again. If it still does not answer two minutes after the batch was stopped, what may run is
        left to SLURM.

        Raises:
            NoAnswerError: the cluster has given only useless answers for long.
            AnswerError, CommandError, DamagedFileError, SubmissionRefusedError: see these classes.
        """
        for submission in self.state.submissions:
            if submission.job_id is not None:
                await self.context.on_submitted(submission.job_id)
        await self._hand_over(on_results)
        try:
            while self.open:
                self._woken.clear()
                self._wait_for(await self._patient_step(on_results))
                await on_results([])
                if self.open:
                    await self._pause()
        finally:
            await self._submitter.close()
        await self._find_missing_ids()

    async def _pause(self) -> None:
        seconds = max(_SHORTEST_PAUSE, (time.monotonic() - self._begun) / 10)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), min(seconds, self.context.seconds))

    async def _patient_step(self, on_results: OnResults) -> str:
        """Make one step. Returns why the cluster does not do its part, or an empty text."""
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
        """Submit, collect and check once. Returns why submitting failed, or an empty text."""
        why = ""
        if self.is_stopped:
            await self._submitter.close()
            await self._cancel()
        else:
            why = await self._submitter.submit(self._due())
            self._close_what_was_given_up()
        await self._collect_if_possible(on_results)
        if not self.open:
            return why
        snapshot = await self.context.queue.latest()
        await self._confirm_submissions(snapshot)
        await self._cancel_what_was_given_up(snapshot)
        if snapshot is not None:
            await self._end_what_never_begins(snapshot)
            self._close_what_was_given_up()
        elements = self._elements()
        if snapshot is not None and (news := self._pending.news(elements.values(), snapshot)):
            self.context.say(news)
        if ended := await self._watch.ended(elements, snapshot):
            await self._collect_if_possible(on_results)  # what they did before they ended
            await self._settle({n: how for n, how in ended.items() if self._is_to_settle(n, how)})
        return why

    def _due(self) -> list[int]:
        """The parts that are to be submitted now: of those, as many as ask for the same."""
        now = time.time()
        due = [
            number
            for number in self.open
            if self.state.submission_of(number) is None
            and self.state.again_at.get(number, 0.0) <= now
            and self._left(number)
        ]
        return [number for number in due if self._growth(number) == self._growth(due[0])]

    def _growth(self, number: int) -> Growth:
        return Growth(self.state.more_mem.get(number, 0), self.state.more_time.get(number, 0))

    async def _max_array_size(self) -> int:
        """The cluster's `MaxArraySize`, or SLURM's default if the cluster never tells its own."""
        try:
            return await self.context.cluster.max_array_size()
        except (TransportError, BusyError):
            if time.monotonic() - self._begun < self.context.patience:
                raise
            return _DEFAULT_MAX_ARRAY_SIZE

    async def _submit_array(self, parts: list[int], offset: int) -> None:
        """Submit parts as one job array.

        The submission is saved before `sbatch` runs: a crash in between must not lose it.
        """
        submission = Submission(
            f"fractal-{uuid4().hex}",
            parts,
            offset,
            time.time(),
            left=[self._left(number) for number in parts],
        )
        await self.context.cluster.send(self._files(submission))
        await self.context.pace.turn()
        self.state.submissions.append(submission)
        self.state.write(self.folder)
        try:
            job_id = await self.context.cluster.submit(
                self.remote_folder / _script_name(submission)
            )
        except (TooManyError, SubmissionRefusedError) as error:
            self.state.submissions.remove(submission)
            self.state.write(self.folder)
            if isinstance(error, TooManyError):
                await self.context.pace.note_refusal()
            elif self._growth(parts[0]) != Growth():
                self._give_up(parts, str(error))
                return
            raise
        if any(job_id == each.job_id for each in self.state.submissions):
            raise BusyError(f"sbatch gives a job the number of another one: {job_id}")
        await self._submitted(submission, job_id)

    def _give_up(self, parts: Collection[int], said: str) -> None:
        """Let units without a result fail that need more than SLURM gives, in its words."""
        for number in parts:
            more = "memory" if self._growth(number).mem else "time"
            why = f"it ran out of {more}, and SLURM gives no more: {' '.join(said.split())}"
            missing = self.parts[number].missing.keys() - self.state.reasons.keys()
            self.state.reasons |= dict.fromkeys(missing, why)
        self._save()

    def _close_what_was_given_up(self) -> None:
        """Close parts of which nothing is left to be submitted."""
        for number in list(self.open):
            if self.state.submission_of(number) is None and not self._left(number):
                del self.open[number]

    async def _end_what_never_begins(self, snapshot: Snapshot) -> None:
        """Cancel parts that got more time than SLURM ever lets them have, and give them up."""
        for number, element in self._elements().items():
            how = snapshot.elements.get((element.token, element.index))
            if how is None or how.reason not in _TOO_LONG or not self._growth(number).time:
                continue
            if element.name is not None:
                await self.context.cluster.cancel([(element.name, element.token)])
                self._submission(number).settled.append(number)
                self._give_up([number], how.reason)

    async def _submitted(self, submission: Submission, job_id: int) -> None:
        submission.job_id = job_id
        self._save()
        await self.context.on_submitted(job_id)
        self.context.say(f"SLURM job {job_id} has {count(len(submission.parts), 'element')}.")

    def _request(self, growth: Growth) -> SlurmRequest:
        assert self.batch is not None  # what can only be stopped is not submitted
        return self.context.grown(self.batch, self.state, growth)

    def _files(self, submission: Submission) -> dict[str, bytes]:
        """The files to send to the cluster, by their paths in the job's folder."""
        assert self.batch is not None  # what can only be stopped is not submitted
        folder = self.remote_folder.relative_to(self.context.cluster.home)
        script = sbatch_script(
            self._request(self._growth(submission.parts[0])),
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
            str(folder / unit_runner.WARM_PROGRAM): Path(warm_process.__file__).read_bytes(),
        }
        units = self.state.split(self.batch.units)
        for number in submission.parts:
            part = replace(
                self.batch,
                folder=Path(self.remote_folder / f"{number:06d}"),
                units_dir=Path(self.context.remote_path(self.batch.units_dir)),
                units=[unit for unit in units[number] if unit.index not in self.state.reasons],
                max_parallel=1 if number in self.state.one_by_one else self.state.parallel_tasks,
            )
            files[str(folder / f"{number:06d}" / BATCH_FILE)] = batch_file(part)
        return files

    async def _collect_if_possible(self, on_results: OnResults) -> None:
        """Collect results. While the batch is being stopped, unusable files do not matter."""
        unusable = (OSError, CommandError, DamagedFileError) if self.is_stopped else ()
        with contextlib.suppress(*unusable):
            await self._collect(on_results)

    async def _collect(self, on_results: OnResults) -> None:
        """Mirror what the parts did on the cluster, and hand over the results."""
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
                self._submitter.notice_an_end()

    async def _cancel(self) -> None:
        """Cancel everything that runs or may run; arrays of unknown id, once the id is known."""
        for number in list(self.open):
            if self.state.submission_of(number) is None:
                del self.open[number]
        if not self.open:
            return
        for unconfirmed in self._unconfirmed():
            await self._look_for(unconfirmed)
        jobs = {
            (str(submission.job_id), submission.token)
            for number in self.open
            if (submission := self.state.submission_of(number)) and submission.is_confirmed
        }
        with contextlib.suppress(CommandError):  # cancelled all the same if it cannot be told
            await self.context.cluster.tell_to_stop([self._there(number) for number in self.open])
        await self._cancel_now_and_then(jobs)

    async def _cancel_now_and_then(self, jobs: Collection[tuple[str, str]]) -> None:
        """Cancel these jobs, each one again only when some time has passed since the last try."""
        now = time.monotonic()
        due = [
            job
            for job in sorted(jobs)
            if now - self._cancelled_at.get(job, -_CANCEL_AGAIN_SECONDS) >= _CANCEL_AGAIN_SECONDS
        ]
        if due:
            await self.context.cluster.cancel(due)
            self._cancelled_at |= dict.fromkeys(due, now)

    def _unconfirmed(self) -> list[Submission]:
        """The submissions that still have parts to run, but whose id is not certain."""
        if self._submitter.is_submitting:
            return []
        found = {id(s): s for number in self.open if (s := self.state.submission_of(number))}
        return [submission for submission in found.values() if not submission.is_confirmed]

    async def _confirm_submissions(self, snapshot: Snapshot | None) -> None:
        """Find the ids of submissions, in particular of those for which `sbatch` gave no answer.

        If SLURM does not list a submission for a long time, and no part of it has begun, it is
        given up, after making sure that it can never begin.
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
        """Look for a submission on the cluster. Returns whether its id is certain now."""
        folders = [self._there(number) for number in submission.parts]
        if (job_id := await self.context.cluster.begun(submission.token, folders)) is not None:
            await self._confirm(submission, job_id)
        elif submission.job_id is not None:
            name = f"{submission.job_id}_{submission.parts[0] - submission.offset}"
            how = await self.context.cluster.look_up(name, submission.token)
            if how not in (None, FORGOTTEN):
                await self._confirm(submission, submission.job_id)
        return submission.is_confirmed

    async def _confirm(self, submission: Submission, job_id: int) -> None:
        submission.is_confirmed = True
        if submission.job_id != job_id:
            await self._submitted(submission, job_id)
        else:
            self._save()

    async def _find_missing_ids(self) -> None:
        """Find the ids that `sbatch` did not answer of what has run, for accounting.

        Units may have ended before SLURM was asked, but their SLURM jobs have left the ids.
        """
        if self.is_stopped and self._waits_for:
            return  # the cluster has not answered for long
        ends_at = time.monotonic() + (0.0 if self.is_stopped else self.context.patience)
        while missing := [
            submission
            for submission in self.state.submissions
            if submission.job_id is None and not set(submission.parts) <= set(submission.settled)
        ]:
            self._woken.clear()
            with contextlib.suppress(TransportError, CommandError, OSError):
                for submission in missing:
                    await self._look_for(submission)
            if time.monotonic() >= ends_at or self.is_stopped:
                what = count(len(missing), "SLURM job array")
                self.context.say(f"The cluster does not tell the number of {what} that has run.")
                return
            await self._pause()

    async def _void(self, submission: Submission) -> None:
        """Give up a submission about which nothing is known.

        Raises:
            SubmissionRefusedError: this has happened too often for the same part.
        """
        parts = [number for number in submission.parts if number not in submission.settled]
        folders = [self._there(number) for number in parts]
        if (job_id := await self.context.cluster.void(submission.token, folders)) is not None:
            await self._confirm(submission, job_id)
            return
        submission.settled += parts
        for number in parts:
            self._wait_before_next(number, "UNKNOWN")
        self._save()
        tries = max(self._tries_of(number) for number in parts)
        if tries >= _MOST_UNKNOWN and not self.is_stopped:
            raise SubmissionRefusedError(
                f"SLURM was given a job {tries} times, and never told of it. {self._waits_for}"
            )
        self.context.say("SLURM does not tell of a job that it was given: it is given up.")

    async def _cancel_what_was_given_up(self, snapshot: Snapshot | None) -> None:
        """Cancel the jobs of submissions that were given up, if they appear after all."""
        if snapshot is None:
            return
        given_up = {s.token: s for s in self.state.submissions if set(s.parts) <= set(s.settled)}
        alive = {
            (str(snapshot.arrays[token]), token)
            for (token, _), how in snapshot.elements.items()
            if token in given_up and how.is_alive
        }
        await self._cancel_now_and_then(alive)

    def _elements(self) -> dict[int, Element]:
        """The array elements that run the open parts, as SLURM should list them."""
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
        """Whether a part whose element ended in this state can send no more results.

        After COMPLETED all results exist, but a shared file system may show them only later, so
        these are waited for.
        """
        if number not in self.open:
            return False
        if how.state != "COMPLETED":
            return True
        seen = self._completed_at.setdefault(number, time.monotonic())
        return time.monotonic() - seen >= self.context.patience

    async def _settle(self, gone: Mapping[int, ElementState]) -> None:
        """Decide what happens to units without a result whose elements have ended."""
        if not gone:
            return
        named = {number: self._element(number) for number in gone}
        await self._end_what_is_forgotten([n for n, how in gone.items() if how is FORGOTTEN])
        refused = await self._refused([n for n, how in gone.items() if how.state == "CANCELLED"])
        ends = await self.context.cluster.ends_of(
            (self._there(number), self._output(name)) for number, name in named.items()
        )
        for (number, how), (said, unfinished) in zip(gone.items(), ends, strict=True):
            time_was_up, was_refused = self.parts[number].reader.time_was_up, number in refused
            how = better_told(how, said, time_was_up=time_was_up, was_refused=was_refused)
            self._settle_one(number, how, said, unfinished)
        self._save()

    async def _refused(self, parts: Collection[int]) -> set[int]:
        """Of parts whose SLURM jobs were cancelled, those of which a node has refused the array.

        A node refuses a job with the number of one that it runs, which SLURM gives again after it
        has lost its state. It then cancels the job, and with the array's number the whole array.
        What was refused had a node, but has begun nothing, not even its output.
        """
        refused: set[int] = set()
        for array in {each.token: each for each in map(self._submission, parts)}.values():
            placed = await self.context.cluster.cancelled_on_nodes(array.job_id or 0, array.token)
            ends = await self.context.cluster.ends_of(
                (self._there(index + array.offset), self._output(f"{array.job_id}_{index}"))
                for index in placed
                if index + array.offset in array.parts
            )
            if any(not said and not begun for said, begun in ends):
                refused |= set(array.parts) & set(parts)
        return refused

    async def _end_what_is_forgotten(self, parts: Collection[int]) -> None:
        """Make sure that parts no longer run, whatever SLURM says about them."""
        if not parts:
            return
        tokens = {number: self._submission(number).token for number in parts}
        await self.context.cluster.cancel(
            [(self._element(n), token) for n, token in tokens.items()]
        )
        for number, token in tokens.items():
            await self.context.cluster.void(token, [self._there(number)])

    def _settle_one(self, number: int, how: ElementState, said: str, running: set[int]) -> None:
        """Decide what happens to the units of a part that have no result, after its element has
        ended.

        Units that are to blame get a reason and never run again, the others are submitted again. If
        all tries are used up, or the runner ended by itself, the part is closed, and the job
        decides.
        """
        what = f"SLURM job {self._element(number)} ended: {how.state}, {how.reason}."
        self._completed_at.pop(number, None)
        self._last_words = f"{what} {said}"
        submission = self._submission(number)
        verdict = verdict_on(
            how,
            self.parts[number].missing.keys() - self.state.reasons.keys(),
            running,
            has_results=self._left(number) < submission.left_of(number),
            was_one_by_one=number in self.state.one_by_one,
            may_grow=self._next_growth(number, how.state) is not None,
        )
        submission.settled.append(number)
        reason = " ".join(f"{what} {said}".split())
        self.state.reasons |= dict.fromkeys(verdict.failed, reason)
        if verdict.one_by_one:
            self.state.one_by_one.append(number)
        way = ", one unit at a time" if verdict.one_by_one else ""
        if verdict.grows and (growth := self._next_growth(number, how.state)) is not None:
            self.state.more_mem[number], self.state.more_time[number] = growth.mem, growth.time
            way = f", with {self._amount(growth, how.state)}"
        if not verdict.in_vain:
            self.state.in_vain.pop(number, None)
        if not (verdict.goes_on and self._left(number)) or self.is_stopped:
            del self.open[number]
            return
        seconds = self._wait_before_next(number, how.state) if verdict.in_vain else 0.0
        if self._tries_of(number) >= _MOST_TRIES:
            del self.open[number]
            return
        when = f" in {seconds:.0f} s" if seconds else ""
        self.context.say(f"{what} What has no result will be submitted again{when}{way}.")

    def _next_growth(self, number: int, state: str) -> Growth | None:
        """More of what a part ran out of; None if it is not to grow, or does not any more."""
        grown = self._growth(number).after(state)
        if grown is None or self.batch is None or not self.batch.grows:
            return None
        return None if self._request(grown) == self._request(self._growth(number)) else grown

    def _amount(self, growth: Growth, state: str) -> str:
        """What units get of what they ran out of."""
        request = self._request(growth)
        if state == "TIMEOUT":
            return f"a time limit of {duration(slurm_seconds(request.time or '0'))}"
        return f"{memory(request.mem * 1024)} for each unit"

    def _wait_before_next(self, number: int, state: str) -> float:
        """Delay the next submission of a part after one that brought nothing. Returns the seconds.

        Each delay is twice as long as the one before. A preempted job has no delay: SLURM's queue
        is the place where it waits.
        """
        ends = self.state.in_vain.setdefault(number, [])
        ends.append(state)
        if state == "PREEMPTED":
            return 0.0
        others = sum(each != "PREEMPTED" for each in ends)
        seconds = min(self.context.patience * 2.0 ** (others - 1), _LONGEST_WAIT)
        self.state.again_at[number] = time.time() + seconds
        return seconds

    def _tries_of(self, number: int) -> int:
        """How often in a row a part was submitted in vain, not counting what the cluster did."""
        ends = self.state.in_vain.get(number, [])
        return sum(each not in OF_THE_CLUSTER for each in ends)

    def _left(self, number: int) -> int:
        """The number of units of a part that have neither a result nor a reason for having none."""
        return len(self.parts[number].missing.keys() - self.state.reasons.keys())

    def _save(self) -> None:
        """Save the state. While the batch is being stopped, a failure to write does not matter."""
        with contextlib.suppress(*((OSError,) if self.is_stopped else ())):
            self.state.write(self.folder)

    def _there(self, number: int) -> PurePosixPath:
        """The folder of a part on the cluster."""
        return self.remote_folder / f"{number:06d}"

    def _output(self, name: str) -> PurePosixPath:
        """The output of an array element on the cluster."""
        return self.remote_folder / f"slurm-{name}.out"

    def _element(self, number: int) -> str:
        """SLURM's name of the array element that runs a part, as 12_3."""
        submission = self._submission(number)
        return f"{submission.job_id}_{number - submission.offset}"

    def _submission(self, number: int) -> Submission:
        """The submission that runs a part which was submitted."""
        submission = self.state.submission_of(number)
        assert submission is not None
        return submission

    def _wait_for(self, why: str) -> None:
        """Log the reason for waiting, but only when it changes."""
        if why and why != self._waits_for:
            self.context.say(f"Waiting for the cluster. {why}")
        self._waits_for = why


def _script_name(submission: Submission) -> str:
    return f"{submission.token}.sh"
