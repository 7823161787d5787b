"""A cluster as one job sees it: the job's files there, and SLURM's commands."""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Annotated, TypeVar

from pydantic import Field, NonNegativeInt, StringConstraints, TypeAdapter, ValidationError

from flows.launchers.slurm.queue import LARGEST_JOB_ID, ElementState, choosing
from flows.launchers.slurm.record import FORGOTTEN, cancelled_on_nodes, look_up, recorded
from flows.process.framing import run_program
from flows.process.transport import AnswerError, Transport, TransportError
from flows.programs import cluster_files
from flows.reports.text import printable
from fractal_models.errors import FractalError

_T = TypeVar("_T")

_TRANSFER_SECONDS = 600.0

# Patterns for lines of SLURM's commands; a site may print other lines around them.
_SUBMITTED = re.compile(rb"(?m)^\s*Submitted batch job (\d{1,10})(?: on cluster \S+)?\s*$")
_REFUSED = re.compile(rb"(?m)^\s*(sbatch|sudo): ")
_MAX_ARRAY_SIZE = re.compile(rb"(?m)^\s*MaxArraySize\s*=\s*(\d{1,9})\s*$")

# What SLURM says when it may accept a job later: too many jobs, of this user, of an account, of all
# or in a quality of service; or a partition that takes none now. And when it does not answer.
_NOT_NOW = re.compile(
    r"(Assoc|QOS)(Max|Grp)SubmitJobs?\w*Limit|temporarily unable to accept job|job queue full"
    r"|Resource temporarily unavailable|Required partition not available"
)
_AWAY = re.compile(
    "Unable to contact slurm controller|Socket timed out|Connection refused"
    "|Zero Bytes were transmitted|in standby mode|can't be reached now"
)
_SUBMIT_SECONDS = 150.0  # more than those for which `sbatch` tries again by itself


# Limits of answers, so that reading them takes little memory: bytes of a text, and its entries.
_LONGEST_LIST = 8 * 1024 * 1024
_ENDS_AT_ONCE = 100
_Said = Annotated[str, StringConstraints(max_length=cluster_files.TAIL)]
_ENDS = TypeAdapter(
    Annotated[list[tuple[_Said, set[NonNegativeInt]]], Field(max_length=_ENDS_AT_ONCE)],
)
_IDS = TypeAdapter(list[Annotated[int, Field(ge=1, le=LARGEST_JOB_ID)]])
_INDEX = TypeAdapter(
    Annotated[list[tuple[str, NonNegativeInt]], Field(max_length=2 * cluster_files.FILES_AT_ONCE)]
)


class SubmissionRefusedError(FractalError):
    """SLURM refuses a job, and would refuse it again; the message has SLURM's words."""


class BusyError(FractalError):
    """SLURM does not answer, or it is not known whether it accepted a job."""


class TooManyError(FractalError):
    """SLURM accepts no jobs now, or fewer at once; the message has SLURM's words."""


@dataclass(frozen=True)
class Cluster:
    """A job's access to a cluster.

    `transport` runs commands as the user to whom the jobs belong, `query_transport` those that
    anybody may run. `home` is the job's folder there, `python` an interpreter (3.8 or newer) there.
    `name` is SLURM's name of the cluster, where its commands reach several.
    """

    transport: Transport
    query_transport: Transport
    python: str
    home: PurePosixPath
    name: str | None = None

    @property
    def chosen(self) -> Sequence[str]:
        """The option with which SLURM's commands are for this cluster."""
        return choosing(self.name)

    async def send(self, files: Mapping[str, bytes]) -> None:
        """Write files, by their paths in the job's folder, in one transfer.

        Raises:
            TransportError, CommandError: the transfer failed; some files may have been written.
        """
        await self._call("receive", str(self.home), stdin=_archive(files))

    async def collect(self, batches: Mapping[str, tuple[PurePosixPath, int]]) -> dict[str, bytes]:
        """What batches did since the last call.

        `batches` has, by name, the folder of a batch and how many bytes of its results are known
        already. The answer has files of units, `units/<name>`, and complete lines of results,
        `results/<batch>`, each after the files that it mentions. The caller must check the names,
        which are as received.

        Raises:
            TransportError, CommandError: the call failed.
            AnswerError: the answer is no such list.
        """
        request = {name: [str(folder), offset] for name, (folder, offset) in batches.items()}
        answer = await self._call("collect", stdin=json.dumps({"batches": request}).encode())
        return unpacked(answer)

    async def tell_to_stop(self, folders: Iterable[PurePosixPath]) -> None:
        """Write into batch folders that the next SIGTERM means to stop.

        Raises:
            TransportError, CommandError: the call failed.
        """
        await self._call("stop", stdin=json.dumps([str(folder) for folder in folders]).encode())

    async def ends_of(
        self, batches: Iterable[tuple[PurePosixPath, PurePosixPath]]
    ) -> list[tuple[str, set[int]]]:
        """How batches ended; each is given as its folder and the output file of its SLURM job.

        For each: the end of that output, and the units that were started but have no result.

        Raises:
            TransportError, CommandError: the call failed.
            AnswerError: the answer does not have this form.
        """
        request = [(str(folder), str(output)) for folder, output in batches]
        ends: list[tuple[str, set[int]]] = []
        for begin in range(0, len(request), _ENDS_AT_ONCE):
            asked = request[begin : begin + _ENDS_AT_ONCE]
            answer = await self._call("end", stdin=json.dumps(asked).encode())
            found = _read(_ENDS, answer, "How batches ended")
            if len(found) != len(asked):
                raise AnswerError(f"The ends of {len(asked)} batches are {len(found)}.")
            ends += [(printable(said), unfinished) for said, unfinished in found]
        return ends

    async def submit(self, script: PurePosixPath) -> int:
        """Submit a script with `sbatch`. Returns the id of the SLURM job.

        Raises:
            SubmissionRefusedError: SLURM refuses the script for good.
            TooManyError: SLURM refuses it at present.
            BusyError: it is not known whether SLURM accepted it, or under which id.
        """
        try:
            answer = await self.transport.run(
                ("sbatch", *self.chosen, str(script)), seconds=_SUBMIT_SECONDS
            )
        except (TransportError, AnswerError) as error:
            raise BusyError(str(error)) from error
        found = {int(number) for number in _SUBMITTED.findall(answer.stdout)}
        if len(found) == 1 and 0 < (job_id := found.pop()) <= LARGEST_JOB_ID:
            return job_id
        if found or answer.exit_code == 0:
            raise BusyError(f"sbatch does not tell the number of its job: {answer.words}")
        if _NOT_NOW.search(answer.words):
            raise TooManyError(answer.words)
        if _AWAY.search(answer.words) or _REFUSED.search(answer.stderr) is None:
            raise BusyError(answer.words)
        raise SubmissionRefusedError(f"SLURM refuses the job: {answer.words}")

    async def begun(self, token: str, folders: Iterable[PurePosixPath]) -> int | None:
        """The id of the SLURM job that began a submission in its batch folders; None if none began.

        Raises:
            TransportError, CommandError: the call failed.
        """
        return await self._ids_of("begun", token, folders)

    async def void(self, token: str, folders: Iterable[PurePosixPath]) -> int | None:
        """Prevent a submission from ever beginning in its batch folders.

        Returns the id of its SLURM job if it has begun already.

        Raises:
            TransportError, CommandError: the call failed.
        """
        return await self._ids_of("void", token, folders)

    async def _ids_of(
        self, action: str, token: str, folders: Iterable[PurePosixPath]
    ) -> int | None:
        request = json.dumps([str(folder) for folder in folders]).encode()
        found = _read(_IDS, await self._call(action, token, stdin=request), "What has begun")
        return found[0] if found else None

    async def cancel(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Cancel SLURM jobs or array elements, each given by its name and the token of its array.

        Those whose array SLURM does not know any more are left out, and those of others: SLURM may
        have given the id again.

        Raises:
            TransportError, BusyError: SLURM does not answer, or refuses.
        """
        arrays: dict[tuple[str, str], list[str]] = {}
        for name, token in jobs:
            arrays.setdefault((name.partition("_")[0], token), []).append(name)
        known = [
            name
            for (array, token), names in arrays.items()
            if await self._knows(array, token)
            for name in names
        ]
        if not known:
            return
        try:
            answer = await self.transport.run(("scancel", "--quiet", *self.chosen, *known))
        except AnswerError as error:
            raise BusyError(str(error)) from error
        if answer.exit_code != 0:
            raise BusyError(f"scancel failed: {answer.words}")

    async def _knows(self, array: str, token: str) -> bool:
        how = await recorded(self.query_transport, array, token, self.chosen)
        if how is None:
            raise BusyError(f"scontrol does not tell whether SLURM job {array} is of this job.")
        return how is not FORGOTTEN

    async def look_up(self, name: str, token: str) -> ElementState | None:
        """See `record.look_up`."""
        return await look_up(self.query_transport, name, token, self.home, self.chosen)

    async def cancelled_on_nodes(self, array: int, token: str) -> set[int]:
        """See `record.cancelled_on_nodes`."""
        return await cancelled_on_nodes(self.query_transport, array, token, self.chosen)

    async def max_array_size(self) -> int:
        """The cluster's `MaxArraySize`: every index in a job array must be below this number.

        Raises:
            TransportError: SLURM cannot be asked.
            BusyError: SLURM does not answer, or its answer does not have the number.
        """
        try:
            answer = await self.query_transport.run(("scontrol", *self.chosen, "show", "config"))
        except AnswerError as error:
            raise BusyError(str(error)) from error
        if (found := _MAX_ARRAY_SIZE.search(answer.stdout)) is None:
            raise BusyError(f"scontrol show config does not tell MaxArraySize: {answer.words}")
        return max(1, int(found[1]))

    async def _call(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return await run_program(
            self.transport,
            self.python,
            cluster_files,
            *arguments,
            stdin=stdin,
            seconds=_TRANSFER_SECONDS,
        )


def unpacked(answer: bytes) -> dict[str, bytes]:
    """The contents, by their names, in an answer of `cluster_files.collect`.

    Raises:
        AnswerError: the answer does not have this form.
    """
    index, _, contents = answer.partition(b"\n")
    sizes = _read(_INDEX, index, "What units did")
    ends = list(accumulate(size for _, size in sizes))
    if len(contents) != (ends[-1] if ends else 0):
        raise AnswerError(
            f"What units did should have {ends[-1] if ends else 0} bytes, and has {len(contents)}."
        )
    found = {
        name: contents[end - size : end] for (name, size), end in zip(sizes, ends, strict=True)
    }
    if len(found) < len(sizes):
        raise AnswerError("What units did names a file twice.")
    return found


def _read(kind: TypeAdapter[_T], answer: bytes, what: str) -> _T:
    if len(answer) > _LONGEST_LIST:
        raise AnswerError(f"{what} is told in {len(answer)} bytes: too many to be read.")
    try:
        return kind.validate_json(answer)
    except ValidationError as error:
        why = error.errors(include_input=False)[0]["msg"]
        raise AnswerError(f"{what} cannot be read: {why}: {answer[:200]!r}") from error


def _archive(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()
