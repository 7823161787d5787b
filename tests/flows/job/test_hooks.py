"""What a state hook writes into the log of a job that has come to its end."""

import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.job.end import conclude_job
from flows.units.job_folder import JobFolder
from fractal_models.tables import HistoryRun, JobV2


@pytest.fixture
async def job(
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
    session: AsyncSession,
) -> JobV2:
    """A submitted job, which nobody executes."""
    submitted = (await submit(runnable, dataset)).json()
    return await session.get_one(JobV2, submitted["id"])


async def _ended(session: AsyncSession, job: JobV2, reason: str) -> str:
    await conclude_job(session, job, "stopped", reason)
    await session.refresh(job)
    assert job.status == "failed"
    return str(job.log)


@pytest.mark.parametrize("reason", ["Ann stopped it", "Ann stopped it.", "Ann stopped it.\n"])
async def test_the_log_of_a_job_that_never_began_says_no_more_than_why(
    session: AsyncSession, job: JobV2, reason: str
) -> None:
    log = await _ended(session, job, reason)
    assert "Job stopped. Ann stopped it." in log
    assert ".." not in log
    assert "could not be written" not in log
    assert "Errno" not in log


async def test_the_log_of_a_job_whose_folder_was_removed_says_so(
    session: AsyncSession, job: JobV2
) -> None:
    folder = JobFolder.of(job)
    folder.create()
    task = job.workflow_dump["task_list"][0]
    session.add(
        HistoryRun(
            dataset_id=job.dataset_id,
            workflowtask_id=task["id"],
            job_id=job.id,
            task_id=task["task_id"],
            workflowtask_dump=task,
            status="submitted",
            num_available_images=0,
        )
    )
    await session.commit()
    shutil.rmtree(folder.path)
    assert f"Its folder {folder.path} was removed." in await _ended(session, job, "Ann stopped it.")


async def test_a_log_that_cannot_be_written_says_why_in_a_sentence(
    session: AsyncSession, job: JobV2
) -> None:
    folder = JobFolder.of(job)
    folder.create()
    folder.log_path.mkdir()
    log = await _ended(session, job, "Ann stopped it.")
    why = f"it is no regular file: '{folder.log_path}'."
    assert f"(The end of this log could not be written: {why})" in log
