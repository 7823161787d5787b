"""A cluster as one job sees it: its files there, and SLURM's commands."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flows.launchers import cluster_files
from flows.launchers.transport import CommandError, Completed, Transport, TransportError

# Reads the program from standard input, so that nothing of ours need be there.
_BOOT = (
    "import sys; f = sys.stdin.buffer; text = f.read(int(f.readline())); "
    "exec(compile(text, 'cluster_files.py', 'exec'))"
)
_TRANSFER_SECONDS = 600.0

# What SLURM says when it may take a job later: there are too many now, or it does not answer.
_TOO_MANY = ("MaxSubmitJob", "temporarily unable to accept job", "Resource temporarily unavailable")
_AWAY = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Zero Bytes were transmitted",
)


class SubmissionRefusedError(Exception):
    """SLURM refuses a job, and will do so again; the message has its words."""


class BusyError(Exception):
    """SLURM does not answer, or it is not known whether it took a job."""


class TooManyError(Exception):
    """SLURM takes no more jobs at the moment, or not so many; the message has its words."""


@dataclass(frozen=True)
class Cluster:
    """How a job gets at a cluster.

    `transport` runs commands as the user whose jobs these are, `looking` what anybody may run.
    `home` is the job's folder there, `python` an interpreter (3.8 or newer) there.
    """

    transport: Transport
    looking: Transport
    python: str
    home: PurePosixPath

    async def send(self, files: Mapping[str, bytes]) -> None:
        """Write files, by their paths in the job's folder, in one transfer.

        Raises:
            TransportError, CommandError: it did not work; some may be written.
        """
        await self._call("receive", str(self.home), stdin=_archive(files))

    async def collect(self, batches: Mapping[str, tuple[PurePosixPath, int]]) -> dict[str, bytes]:
        """What batches (by name: folder, bytes of the results that are known) did since.

        The answer has files of units, `units/<name>`, and whole lines of results,
        `results/<batch>`, each after the files that it speaks of.

        Raises:
            TransportError, CommandError: it did not work.
        """
        request = {name: [str(folder), offset] for name, (folder, offset) in batches.items()}
        answer = await self._call("collect", stdin=json.dumps({"batches": request}).encode())
        with tarfile.open(fileobj=io.BytesIO(answer), mode="r|") as archive:
            return {
                member.name: content.read()
                for member in archive
                if (content := archive.extractfile(member)) is not None
            }

    async def tell_to_stop(self, folders: Iterable[PurePosixPath]) -> None:
        """Leave word in batch folders that the next SIGTERM stops them.

        Raises:
            TransportError, CommandError: it did not work.
        """
        await self._call("stop", stdin=json.dumps([str(folder) for folder in folders]).encode())

    async def ends_of(
        self, batches: Iterable[tuple[PurePosixPath, PurePosixPath]]
    ) -> list[tuple[str, set[int]]]:
        """How batches (folder, output of the SLURM job) ended.

        That is the end of the output, and the units that were started and have no result.

        Raises:
            TransportError, CommandError: it did not work.
        """
        request = [(str(folder), str(output)) for folder, output in batches]
        answer = await self._call("end", stdin=json.dumps(request).encode())
        return [(said, set(unfinished)) for said, unfinished in json.loads(answer)]

    async def submit(self, script: PurePosixPath) -> int:
        """Submit a script; the id of its SLURM job.

        Raises:
            SubmissionRefusedError: SLURM refuses it for good.
            TooManyError: it refuses it at present.
            BusyError: it is not known whether it took it.
        """
        command = ("sbatch", "--parsable", str(script))
        try:
            answer = await self.transport.run(command)
        except TransportError as error:
            raise BusyError(str(error)) from error
        if answer.exit_code == 0:
            return int(answer.stdout.decode().strip().split(";")[0])
        if _says(answer, _TOO_MANY):
            raise TooManyError(answer.words)
        if _says(answer, _AWAY):
            raise BusyError(answer.words)
        raise SubmissionRefusedError(f"SLURM refuses the job: {answer.words}")

    async def cancel(self, job_ids: Iterable[int]) -> None:
        """Cancel SLURM jobs, with all elements of arrays. Those that have ended do not mind.

        Raises:
            TransportError, BusyError: SLURM does not answer.
            CommandError: it refuses.
        """
        await _checked(self.transport, "scancel", "--quiet", *map(str, job_ids))

    async def max_array_size(self) -> int:
        """The number that all indexes in a job array are below.

        Raises:
            TransportError, BusyError: SLURM does not answer.
            CommandError: it answers something else.
        """
        answer = await _checked(self.looking, "scontrol", "show", "config")
        for line in answer.stdout.decode(errors="replace").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "MaxArraySize":
                return int(value)
        raise CommandError("scontrol show config does not tell MaxArraySize")

    async def _call(self, *arguments: str, stdin: bytes = b"") -> bytes:
        program = Path(cluster_files.__file__).read_bytes()
        ended = await self.transport.run(
            (self.python, "-I", "-S", "-c", _BOOT, *arguments),
            f"{len(program)}\n".encode() + program + stdin,
            seconds=_TRANSFER_SECONDS,
        )
        return ended.check().stdout


async def _checked(transport: Transport, *command: str) -> Completed:
    answer = await transport.run(command)
    if answer.exit_code != 0 and _says(answer, _AWAY):
        raise BusyError(answer.words)
    return answer.check()


def _says(answer: Completed, words: Sequence[str]) -> bool:
    return any(each in answer.words for each in words)


def _archive(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()
