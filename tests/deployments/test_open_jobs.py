"""Open jobs: which they are, and whether their units still run."""

import fcntl
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.open_jobs import OpenJob, read_open_jobs
from fractal_models.tables import JobV2


def job(status: str, workflow: str, folder: str | None = None) -> JobV2:
    return JobV2(
        status=status,
        user_email="user@example.org",
        workflow_dump={"name": workflow, "task_list": []},
        dataset_dump={"name": "plate"},
        project_dump={},
        fractal_server_version="2",
        first_task_index=0,
        last_task_index=0,
        working_dir=folder,
    )


async def test_submitted_jobs_are_open_the_oldest_first(
    session: AsyncSession, database: URL
) -> None:
    session.add_all(
        [job("submitted", "a"), job("done", "b"), job("failed", "c"), job("submitted", "d", "/d")]
    )
    await session.commit()
    found = await read_open_jobs(database)
    assert [(each.workflow, each.folder) for each in found] == [("a", None), ("d", "/d")]
    assert str(found[0]) == f"job {found[0].id} (a on plate)"
    assert found[0].id < found[1].id


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """The lock of a batch in a job's folder."""
    folder = tmp_path / "0_segment" / "batches" / "parallel"
    folder.mkdir(parents=True)
    lock = folder / "lock"
    lock.touch()
    return lock


def test_units_run_as_long_as_the_lock_of_a_batch_is_held(tmp_path: Path, lock: Path) -> None:
    open_job = OpenJob(1, "a", "plate", str(tmp_path))
    assert not open_job.has_running_units()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert open_job.has_running_units()
    assert not open_job.has_running_units()


def test_a_job_that_has_not_begun_has_no_running_units(tmp_path: Path) -> None:
    assert not OpenJob(1, "a", "plate", None).has_running_units()
    assert not OpenJob(1, "a", "plate", str(tmp_path / "not-there")).has_running_units()
