"""Remembers which jobs have a folder on a cluster, until that is removed."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from flows.process.framing import run_program
from flows.process.transport import AnswerError, Transport
from flows.programs import cluster_files

_REMOVE_SECONDS = 600.0


class KeptFolders:
    """The jobs of a resource that have a folder on its cluster: an empty file for each."""

    def __init__(self, jobs_local_dir: str) -> None:
        self._folder = Path(jobs_local_dir, ".on-cluster")

    def path(self, job_id: int) -> Path:
        """The file that exists as long as a job has a folder on the cluster."""
        return self._folder / str(job_id)

    def job_ids(self) -> set[int]:
        """The jobs that have one."""
        with suppress(FileNotFoundError):
            return {int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()}
        return set()

    def forget(self, job_ids: Iterable[int]) -> None:
        """Note that jobs have none any more."""
        for job_id in job_ids:
            self.path(job_id).unlink(missing_ok=True)


async def remove_folders(
    transport: Transport, python: str, folders: Iterable[PurePosixPath]
) -> set[PurePosixPath]:
    """Remove job folders on a cluster, with all that is in them. Returns those that are gone.

    Raises:
        TransportError, CommandError: the cluster does not answer.
    """
    request = json.dumps([str(folder) for folder in folders]).encode()
    answer = await run_program(
        transport, python, cluster_files, "remove", stdin=request, seconds=_REMOVE_SECONDS
    )
    try:
        gone = json.loads(answer)
        return {PurePosixPath(each) for each in gone}
    except (ValueError, TypeError) as error:
        raise AnswerError(f"Which folders are gone cannot be read: {answer[:200]!r}") from error
