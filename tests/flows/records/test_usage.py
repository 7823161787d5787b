"""The work of a job is what its units, in all of its workflow tasks, left in the database."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records.usage import work_of_job
from flows.reports.summary import Work
from fractal_models.database import saved_id
from fractal_models.tables import DatasetV2, HistoryRun, HistoryUnit, JobV2, ProjectV2, Resource
from fractal_models.tables.columns import now

BEGAN = now()


async def _dataset(session: AsyncSession) -> int:
    resource = Resource(
        type="local", name="here", jobs_local_dir="/j", jobs_poll_interval=5, tasks_local_dir="/t"
    )
    session.add(resource)
    await session.flush()
    project = ProjectV2(name="p", resource_id=saved_id(resource))
    session.add(project)
    await session.flush()
    dataset = DatasetV2(name="d", project_id=saved_id(project), zarr_dir="/z")
    session.add(dataset)
    await session.flush()
    return saved_id(dataset)


async def _job(session: AsyncSession, dataset_id: int) -> int:
    job = JobV2(
        user_email="me@example.org",
        fractal_server_version="2",
        first_task_index=0,
        last_task_index=1,
        status="done",
        dataset_id=dataset_id,
    )
    session.add(job)
    await session.flush()
    return saved_id(job)


async def _run(
    session: AsyncSession,
    dataset_id: int,
    job_id: int,
    order: int,
    *units: dict[str, Any],
    task_type: str = "parallel",
) -> None:
    """A workflow task, named `task` and aliased after the first, with these units."""
    run = HistoryRun(
        dataset_id=dataset_id,
        job_id=job_id,
        workflowtask_dump={
            "order": order,
            "alias": "by another name" if order else None,
            "task": {"name": "task"},
            "task_type": task_type,
        },
        status="done",
        num_available_images=7,
        timestamp_started=BEGAN + timedelta(minutes=order),
    )
    session.add(run)
    await session.flush()
    session.add_all(HistoryUnit(history_run_id=saved_id(run), **unit) for unit in units)
    await session.flush()


def _done(memory: int, seconds: float, attempt: int = 1) -> dict[str, Any]:
    return {
        "status": "done",
        "zarr_urls": ["/a"],
        "ended_at": BEGAN + timedelta(seconds=seconds),
        "max_rss_kb": memory,
        "cpu_seconds": 2.5,
        "attempt": attempt,
    }


async def test_the_work_of_a_job_is_told_by_workflow_task_and_as_a_whole(
    session: AsyncSession,
) -> None:
    dataset = await _dataset(session)
    job, other = await _job(session, dataset), await _job(session, dataset)
    lost = {"status": "failed", "attempt": 2, "zarr_urls": ["/b"]}
    await _run(session, dataset, job, 0, _done(100, 3), _done(300, 9, attempt=3), _done(800, 4))
    await _run(session, dataset, job, 1, _done(200, 70), lost)
    await _run(session, dataset, other, 0, _done(9000, 1000))
    assert await work_of_job(session, job) == [
        Work("0 task", 3, 3, 3, 0, 2, 9.0, 7.5, 300.0, 800),
        Work("1 by another name", 2, 2, 1, 1, 1, 10.0, 2.5, 200.0, 200),
        Work(None, None, 5, 4, 1, 3, 70.0, 10.0, 250.0, 800),
    ]


async def test_what_was_not_measured_is_unknown(session: AsyncSession) -> None:
    dataset = await _dataset(session)
    job = await _job(session, dataset)
    await _run(session, dataset, job, 0)
    nothing = (0, 0, 0, 0, None, None, None, None)
    assert await work_of_job(session, job) == [
        Work("0 task", 0, *nothing),
        Work(None, None, *nothing),
    ]


@pytest.mark.parametrize(
    ("task_type", "expected"),
    [("compound", 2), ("converter_compound", 0), ("non_parallel", 2), ("parallel", 2)],
)
async def test_the_images_of_a_workflow_task_are_those_that_it_was_given(
    session: AsyncSession, task_type: str, expected: int
) -> None:
    dataset = await _dataset(session)
    job = await _job(session, dataset)
    images = {
        "compound": [["/a", "/b"], ["/c"], ["/d"], ["/e"]],
        "converter_compound": [[], ["/c"]],
        "non_parallel": [["/a", "/b"]],
        "parallel": [["/a"], ["/b"]],
    }[task_type]
    units = [{**_done(1, 1), "zarr_urls": urls} for urls in images]
    await _run(session, dataset, job, 0, *units, task_type=task_type)
    assert (await work_of_job(session, job))[0].num_images == expected


async def test_a_job_that_began_nothing_has_no_work(session: AsyncSession) -> None:
    assert await work_of_job(session, await _job(session, await _dataset(session))) == []
