"""How the tasks of a workflow stand on a dataset, with a history written here as jobs would."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import HistoryImageCache, HistoryRun, HistoryUnit, JobV2

COMMANDS = {
    "parallel": {"command_parallel": "true"},
    "compound": {"command_parallel": "true", "command_non_parallel": "true"},
    "converter_compound": {
        "type": "converter_compound",
        "command_parallel": "true",
        "command_non_parallel": "true",
    },
    "converter_non_parallel": {
        "type": "converter_non_parallel",
        "command_non_parallel": "true",
    },
}
NOTHING = {
    "num_available_images": 0,
    "num_submitted_images": 0,
    "num_done_images": 0,
    "num_failed_images": 0,
    "has_warnings": False,
}


class World:
    """A workflow with a task per type, a dataset, and jobs on them."""

    def __init__(
        self,
        owner: Any,
        workflow: dict[str, Any],
        dataset: dict[str, Any],
        submit: Callable[..., Awaitable[Any]],
        session: AsyncSession,
    ) -> None:
        self.workflow = workflow
        self.tasks = [task["id"] for task in workflow["task_list"]]
        self._owner = owner
        self._dataset = dataset
        self._submit = submit
        self._session = session
        self._base = f"/api/v2/project/{workflow['project_id']}"

    async def job(self, **request: Any) -> int:
        answer = await self._submit(self.workflow, self._dataset, **request)
        assert answer.is_success, answer.text
        job_id: int = answer.json()["id"]
        return job_id

    async def end(self, job_id: int, status: str = "done") -> None:
        job = await self._session.get_one(JobV2, job_id)
        job.status = status
        await self._session.commit()

    async def retry(self, job_id: int, after: int) -> None:
        job = await self._session.get_one(JobV2, job_id)
        job.status, job.retried_after = "submitted", after
        await self._session.commit()

    async def run(
        self,
        job_id: int,
        task: int,
        status: str,
        units: list[tuple[str, bool, list[str]]],
        available: int = 0,
        image_units: int | None = None,
    ) -> int:
        """A HistoryRun of the task at this place; units have a status, warnings and images.

        The first `image_units` (default: all) become the latest of their images.
        """
        run = HistoryRun(
            dataset_id=self._dataset["id"],
            workflowtask_id=self.tasks[task],
            job_id=job_id,
            workflowtask_dump={},
            status=status,
            num_available_images=available,
        )
        self._session.add(run)
        await self._session.flush()
        for index, (unit_status, warns, urls) in enumerate(units):
            unit = HistoryUnit(
                history_run_id=run.id, status=unit_status, has_warnings=warns, zarr_urls=urls
            )
            self._session.add(unit)
            await self._session.flush()
            if image_units is None or index < image_units:
                for url in urls:
                    cached = HistoryImageCache(
                        zarr_url=url,
                        dataset_id=self._dataset["id"],
                        workflowtask_id=self.tasks[task],
                        latest_history_unit_id=unit.id,
                    )
                    await self._session.merge(cached)
        await self._session.commit()
        assert run.id is not None
        return run.id

    async def statuses(self) -> list[Any]:
        """Of the tasks, in their order."""
        query = f"dataset_id={self._dataset['id']}&workflow_id={self.workflow['id']}"
        latest = await self._owner.ok("GET", f"{self._base}/latest-job/?{query}")
        return [latest["task_statuses"][str(task)] for task in self.tasks]

    async def words(self) -> list[str | None]:
        return [status and status["status"] for status in await self.statuses()]


@pytest.fixture
def make(
    owner: Any,
    workflow: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
    new_task: Callable[..., Awaitable[dict[str, Any]]],
    session: AsyncSession,
) -> Callable[..., Awaitable[World]]:
    async def world(*types: str) -> World:
        url = f"/api/v2/project/{workflow['project_id']}/workflow/{workflow['id']}/"
        tasks = [{"task_id": (await new_task(**COMMANDS[type_]))["id"]} for type_ in types]
        await owner.ok("POST", f"{url}wftask/", json=tasks)
        return World(owner, await owner.ok("GET", url), dataset, submit, session)

    return world


async def test_tasks_that_the_running_job_has_not_begun_are_submitted(make: Any) -> None:
    world = await make("parallel", "parallel", "parallel", "parallel")
    job = await world.job(first_task_index=1, last_task_index=2)

    assert await world.statuses() == [None, *[{"status": "submitted"}] * 2, None]
    await world.run(job, 1, "done", [("done", False, ["/a"])], available=1)
    assert await world.words() == [None, "done", "submitted", None]
    await world.end(job)
    assert await world.words() == [None, "done", None, None]


async def test_that_a_job_waits_hides_results_of_jobs_before_it(make: Any) -> None:
    world = await make("parallel", "parallel")
    first = await world.job()
    await world.run(first, 0, "done", [("done", False, ["/a"])], available=1)
    await world.run(first, 1, "failed", [("failed", True, ["/a"])], available=1)
    await world.end(first, "failed")
    before = await world.statuses()
    await world.job(first_task_index=1)

    assert [status["status"] for status in before] == ["done", "failed"]
    assert await world.statuses() == [before[0], {**before[1], "status": "submitted"}]


async def test_a_retried_job_has_yet_to_begin_what_had_failed(make: Any) -> None:
    world = await make("parallel", "parallel")
    job = await world.job()
    await world.run(job, 0, "done", [("done", False, ["/a"])], available=1)
    failed = await world.run(job, 1, "failed", [("failed", False, ["/a"])], available=1)
    await world.end(job, "failed")
    await world.retry(job, after=failed)

    assert await world.words() == ["done", "submitted"]
    await world.run(job, 1, "submitted", [("submitted", False, ["/a"])], available=1)
    assert await world.words() == ["done", "submitted"]
    await world.run(job, 1, "done", [("done", False, ["/a"])], available=1)
    assert await world.words() == ["done", "done"]


async def test_converters_have_counts_of_no_images(make: Any) -> None:
    world = await make("converter_non_parallel", "converter_compound")
    job = await world.job()
    await world.run(job, 0, "done", [("done", False, [])])
    await world.run(job, 1, "done", [("done", False, []), ("done", True, ["/a"])], image_units=1)
    await world.end(job)

    quiet = {"status": "done", **NOTHING}
    assert await world.statuses() == [quiet, {**quiet, "has_warnings": True}]


@pytest.mark.parametrize("warning", [0, 1])
async def test_warnings_of_both_phases_of_a_compound_task_count(make: Any, warning: int) -> None:
    world = await make("compound")
    units = [("done", warning == index, ["/a"]) for index in range(2)]
    job = await world.job()
    await world.run(job, 0, "done", units, available=1, image_units=1)
    await world.end(job)
    [warned] = await world.statuses()
    again = await world.job()
    await world.run(again, 0, "done", [("done", False, ["/a"])] * 2, available=1, image_units=1)
    [not_any_more] = await world.statuses()

    assert (warned["num_done_images"], warned["has_warnings"]) == (1, True)
    assert not not_any_more["has_warnings"]


async def test_of_a_parallel_task_the_latest_units_of_images_warn(make: Any) -> None:
    world = await make("parallel")
    job = await world.job()
    await world.run(job, 0, "failed", [("failed", True, ["/a"]), ("done", False, ["/b"])], 2)
    await world.end(job, "failed")
    [warned] = await world.statuses()
    again = await world.job()
    await world.run(again, 0, "done", [("done", False, ["/a"])], 2)
    [not_any_more] = await world.statuses()

    assert warned["has_warnings"]
    assert not not_any_more["has_warnings"]
    assert not_any_more["num_done_images"] == not_any_more["num_available_images"] == 2
