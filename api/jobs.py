"""What users do with their jobs, and administrators with any: look, stop, end, download."""

import asyncio
import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from fastapi.responses import StreamingResponse
from sqlalchemy import URL
from sqlmodel.ext.asyncio.session import AsyncSession

from api.logs import read_log
from flows.engine.client import Engine, EngineUnavailableError, UnpublishedError
from flows.engine.wait_reasons import PREFECT_AWAY, waiting_line, without_worker
from flows.process.lock import LockedError, holding_job
from flows.records.jobs import WaitingLine, end_job, request_stop, tell_waiting
from flows.records.runs import abandon_runs
from flows.units.job_folder import JOB_LOG, archive_path, write_archive
from flows.units.left_files import open_left
from fractal_models.database import release, saved_id
from fractal_models.errors import NotFoundError, RefusedError
from fractal_models.schemas.job import JobRead
from fractal_models.tables import JobV2, Resource
from fractal_models.tables.columns import now

_LOGGER = logging.getLogger("fractal.api")
_ZIP = "application/x-zip-compressed"
_PORTION_BYTES = 256 << 10


def require_submitted(job: JobV2) -> None:
    """Raises RefusedError: the job has ended."""
    if job.status != "submitted":
        raise RefusedError(f"Job {job.id} has ended already ({job.status}).")


async def read_whole_job(session: AsyncSession, job: JobV2, *, with_log_so_far: bool) -> JobRead:
    """A job; if one that runs is to have its log so far, as far as that is written."""
    answer = JobRead.model_validate(job)
    if with_log_so_far and job.status == "submitted":
        await release(session)
        answer.log = await _log_so_far(job)
    return answer


async def hand_over(session: AsyncSession, engine: Engine, job: JobV2, resource: Resource) -> None:
    """Have Prefect begin a new job. If that will take long, the job's log says why."""
    reason = None
    await release(session)
    try:
        job.flow_run_id = await engine.submit_job(job, resource)
        await session.commit()
        if await engine.pools_without_worker([resource.work_pool]):
            reason = without_worker(resource.name)
    except UnpublishedError:
        reason = without_worker(resource.name)
    except EngineUnavailableError as error:
        _LOGGER.warning("Job %s waits for Prefect: %s", job.id, error)
        reason = PREFECT_AWAY if job.flow_run_id is None else None
    if reason is not None:
        line = WaitingLine(saved_id(job), job.log, waiting_line(reason, now()))
        await tell_waiting(session, [line])
        await session.refresh(job)


async def request_end(session: AsyncSession, engine: Engine, job: JobV2) -> None:
    """Ask a job to stop.

    Whoever executes it, now or after an interruption, will obey; Prefect only tells it sooner.

    Raises:
        RefusedError: it has ended.
    """
    require_submitted(job)
    job_id = saved_id(job)
    await request_stop(session, job_id, "Stopped through the Fractal API.")
    reason = "The job was stopped before it began."
    end = partial(end_job, session, job_id, outcome="stopped", reason=reason)
    if job.flow_run_id is None and await end(only_without_flow_run=True):
        return
    await session.refresh(job, ["flow_run_id"])
    await release(session)
    try:
        ended = job.flow_run_id is not None and await engine.cancel(job.flow_run_id)
    except EngineUnavailableError as error:
        _LOGGER.warning("Job %s will stop without being told by Prefect: %s", job.id, error)
        return
    if ended and not await asyncio.to_thread(Path(str(job.working_dir)).exists):
        await end()


async def end_as_failed(
    session: AsyncSession, engine: Engine, database_url: URL, job: JobV2, reason: str
) -> None:
    """End a job that nobody executes. Its flow run is cancelled first, so that nobody ever will.

    Raises:
        RefusedError: it is executed, or it has ended.
        EngineUnavailableError: its flow run cannot be cancelled; nothing was changed.
    """
    try:
        async with holding_job(database_url, saved_id(job)):
            await session.refresh(job)
            require_submitted(job)
            await release(session)
            if job.flow_run_id is not None:
                await engine.cancel_at_once(job.flow_run_id, reason)
            story = await _log_so_far(job) or ""
            await abandon_runs(session, job)
            await end_job(session, saved_id(job), outcome="failed", reason=reason, story=story)
            await session.refresh(job)
    except LockedError as error:
        raise RefusedError(
            f"Job {job.id} is being executed: stop it, and wait for its end."
        ) from error


async def zipped_folder(session: AsyncSession, job: JobV2) -> StreamingResponse:
    """The folder of a job, zipped; the archive that was made at its end, if it has ended.

    Raises:
        NotFoundError: it has none, or that was removed.
    """
    await release(session)
    if job.working_dir is None:
        raise NotFoundError("The folder of job", job.id)
    folder = Path(job.working_dir)
    try:
        file = await asyncio.to_thread(_open_zip, folder)
    except OSError as error:
        _LOGGER.warning("The folder of job %s cannot be sent: %s", job.id, error)
        raise NotFoundError("The folder of job", job.id) from error
    headers = {
        "content-length": str(os.fstat(file.fileno()).st_size),
        "content-disposition": f'attachment; filename="{archive_path(folder).name}"',
    }
    return StreamingResponse(_portions(file), media_type=_ZIP, headers=headers)


def _open_zip(folder: Path) -> IO[bytes]:
    """The archive of a folder, or one that is made now, and gone when it is closed.

    Raises:
        OSError: neither is there, or can be read or written.
    """
    archive = archive_path(folder)
    with suppress(FileNotFoundError):
        return open_left(archive, below=archive.parent)
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    file = tempfile.TemporaryFile()  # noqa: SIM115  # its reader closes it
    try:
        write_archive(folder, file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _portions(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while portion := file.read(_PORTION_BYTES):
            yield portion


async def _log_so_far(job: JobV2) -> str | None:
    """What is written in the folder of a job that has not ended, and then why it waits."""
    path = Path(job.working_dir or "", JOB_LOG)
    if job.working_dir is None or not await asyncio.to_thread(path.is_file):
        return job.log
    return f"{await read_log(path, folder=path.parent)}{job.log or ''}"
