"""Remembers which jobs have a folder on a cluster, until that is removed."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from flows.process.framing import run_program
from flows.process.transport import AnswerError, Transport
from flows.programs import cluster_files

_SECONDS = 600.0

Answer = TypeVar("Answer")


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
    return set(await _answer(list[PurePosixPath], transport, python, "remove", folders))


async def folder_sizes(
    transport: Transport, python: str, folders: Iterable[PurePosixPath]
) -> dict[PurePosixPath, int]:
    """How many bytes those job folders on a cluster have that are there.

    Raises:
        TransportError, CommandError: the cluster does not answer.
    """
    return dict(await _answer(list[tuple[PurePosixPath, int]], transport, python, "sizes", folders))


async def _answer(
    kind: type[Answer],
    transport: Transport,
    python: str,
    action: str,
    folders: Iterable[PurePosixPath],
) -> Answer:
    request = json.dumps([str(folder) for folder in folders]).encode()
    answer = await run_program(
        transport, python, cluster_files, action, stdin=request, seconds=_SECONDS
    )
    try:
        return TypeAdapter(kind).validate_json(answer)
    except ValidationError as error:
        raise AnswerError(f"The answer to {action!r} cannot be read: {answer[:200]!r}") from error
