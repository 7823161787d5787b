"""What units of a task version needed is read from all its runs, and from no others."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records.needs import EarlierRun, earlier_runs, needs_of
from fractal_models.database import saved_id
from fractal_models.tables import (
    DatasetV2,
    HistoryRun,
    HistoryUnit,
    JobV2,
    ProjectV2,
    Resource,
    TaskGroupV2,
    TaskV2,
    UserOAuth,
    WorkflowTaskV2,
    WorkflowV2,
)
from fractal_models.tables.columns import now

BEGAN = now()


class Past:
    """A project in whose datasets tasks have run."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add(self, row: Any) -> int:
        self.session.add(row)
        await self.session.flush()
        return saved_id(row)

    async def begin(self) -> None:
        self.user = await self.add(UserOAuth(email="me@example.org", hashed_password="x"))
        folders = {"jobs_local_dir": "/j", "tasks_local_dir": "/t"}
        resource = Resource(type="local", name="here", jobs_poll_interval=5, **folders)
        self.resource = await self.add(resource)
        self.project = await self.add(ProjectV2(name="p", resource_id=self.resource))
        self.workflow = await self.add(WorkflowV2(name="w", project_id=self.project))
        self.dataset = await self.new_dataset()

    async def new_dataset(self) -> int:
        return await self.add(DatasetV2(name="d", project_id=self.project, zarr_dir="/z"))

    async def task(self, name: str = "segment", **group: Any) -> int:
        """A task in a task group of its own."""
        fields = {"origin": "pypi", "pkg_name": "package", "version": "1.0", **group}
        owned = {"user_id": self.user, "resource_id": self.resource}
        group_id = await self.add(TaskGroupV2(**owned, **fields))
        return await self.add(TaskV2(name=name, type="parallel", taskgroupv2_id=group_id))

    async def in_workflow(self, task_id: int) -> int:
        fields = {"workflow_id": self.workflow, "task_type": "parallel", "order": 0}
        return await self.add(WorkflowTaskV2(task_id=task_id, **fields))

    async def run(self, task_id: int, *units: dict[str, Any], **fields: Any) -> int:
        """A run of a task with these units. Returns the job's id."""
        columns = {"user_email": "", "fractal_server_version": "2"}
        job = JobV2(**columns, first_task_index=0, last_task_index=0, status="done")
        job_id = await self.add(job)
        given = {
            "dataset_id": self.dataset,
            "job_id": job_id,
            "task_id": task_id,
            "status": "done",
            "num_available_images": 1,
            "timestamp_started": BEGAN,
            **fields,
        }
        run_id = await self.add(HistoryRun(**given))
        for unit in units:
            await self.add(HistoryUnit(history_run_id=run_id, **unit))
        return job_id


@pytest.fixture
async def past(session: AsyncSession) -> Past:
    past = Past(session)
    await past.begin()
    return past


def unit(
    seconds: float, *, kind: str = "par", after: float = 1.0, rss: int = 1000, **fields: Any
) -> dict[str, Any]:
    """A unit that began `after` the run and took so many seconds, of which half of a CPU's."""
    began = BEGAN + timedelta(seconds=after)
    return {
        "logfile": f"/jobs/0_segment/{kind}-000000.log",
        "status": "done",
        "zarr_urls": ["/a"],
        "started_at": began,
        "ended_at": began + timedelta(seconds=seconds),
        "max_rss_kb": rss,
        "cpu_seconds": seconds / 2,
        **fields,
    }


async def test_needs_are_spread_over_all_done_units_of_all_runs(
    past: Past, session: AsyncSession
) -> None:
    task = await past.task()
    await past.run(task, *(unit(seconds) for seconds in range(1, 7)))
    await past.run(task, *(unit(seconds, after=3) for seconds in range(7, 12)), status="failed")
    await past.run(task, unit(999, status="failed"), unit(0, max_rss_kb=None, ended_at=None))

    [(key, need)] = (await needs_of(session, [task])).items()

    assert key == (task, "parallel")
    assert (need.num_runs, need.num_units) == (2, 11)
    wall = need.wall_seconds
    assert (wall.low, wall.median, wall.high, wall.mean, wall.highest) == (2, 6, 10, 6, 11)
    assert need.cpu_seconds.median == 3
    assert need.peak_rss_kb.highest == 1000
    assert need.lead_seconds.median == 2


async def test_the_phases_of_a_compound_task_are_told_apart(
    past: Past, session: AsyncSession
) -> None:
    task = await past.task()
    await past.run(task, unit(2, kind="init", rss=50), unit(8, after=7), unit(9, after=8))

    needs = await needs_of(session, [task])

    assert needs[task, "init"].wall_seconds.median == 2
    assert needs[task, "init"].lead_seconds.median == 1
    assert needs[task, "parallel"].num_units == 2
    assert needs[task, "parallel"].lead_seconds.median == 4  # after the end of the init unit


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ({}, True),
        ({"version": "1.1"}, False),
        ({"pkg_name": "else"}, False),
        ({"name": "measure"}, False),
        ({"origin": "wheel-file"}, False),
    ],
)
async def test_a_task_version_is_the_same_whoever_collected_it(
    other: dict[str, Any], counts: bool, past: Past, session: AsyncSession
) -> None:
    mine, theirs = await past.task(), await past.task(**other)
    await past.run(theirs, unit(4))

    assert bool(await needs_of(session, [mine])) is counts


async def test_the_latest_runs_of_a_task_version_are_looked_at_whosever_they_are(
    past: Past, session: AsyncSession
) -> None:
    mine, theirs = await past.task(), await past.task()
    for seconds in range(1, 16):
        await past.run(mine, unit(seconds))
        await past.run(theirs, unit(100 + seconds))

    need = (await needs_of(session, [mine]))[mine, "parallel"]

    wall = need.wall_seconds
    assert (need.num_runs, need.num_units) == (20, 20)
    assert (wall.highest, wall.mean) == (115, (sum(range(6, 16)) * 2 + 1000) / 20)


async def test_custom_tasks_of_one_name_are_different(past: Past, session: AsyncSession) -> None:
    mine, other = await past.task(origin="other"), await past.task(origin="other")
    await past.run(other, unit(4))

    assert await needs_of(session, [mine]) == {}
    assert (await needs_of(session, [mine, other])).keys() == {(other, "parallel")}


async def test_a_workflow_task_was_last_done_on_this_dataset_or_else_on_another(
    past: Past, session: AsyncSession
) -> None:
    task = await past.task()
    here, elsewhere, never = [await past.in_workflow(task) for _ in range(3)]
    other = {"dataset_id": await past.new_dataset()}
    init = unit(1, kind="init", zarr_urls=["/a", "/b"])
    job = await past.run(task, init, unit(1), unit(1), unit(1), workflowtask_id=here)
    await past.run(task, unit(1), workflowtask_id=here, **other)
    await past.run(task, unit(1), workflowtask_id=here, status="failed")
    second = await past.run(task, unit(1), unit(1), workflowtask_id=elsewhere, **other)

    tasks = dict.fromkeys((here, elsewhere, never), task)
    found = await earlier_runs(session, past.dataset, tasks)

    assert found == {
        here: EarlierRun(job, 2, {"init": 1, "parallel": 3}),
        elsewhere: EarlierRun(second, 2, {"parallel": 2}),
    }
