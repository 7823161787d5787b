"""What waits for a worker: to get a process, or to have its process told to stop."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import update
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.records.waiting import others_are_open, some_are_to_stop, something_waits
from fractal_models.database import saved_id
from fractal_models.tables import JobV2, Resource, TaskGroupActivityV2, TaskGroupV2


@pytest.fixture
async def ended(session: AsyncSession) -> AsyncIterator[None]:
    """At the end, no job and no activity is open."""
    yield
    await session.exec(update(JobV2).values(status="done"))
    await session.exec(update(TaskGroupActivityV2).values(status="OK"))
    await session.commit()


@pytest.mark.usefixtures("ended")
async def test_a_job_waits_until_its_flow_run_has_a_process(
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
    session: AsyncSession,
    resource: Resource,
) -> None:
    pool = resource.work_pool
    assert not await something_waits(session, pool, [])
    job = (await submit(runnable, dataset)).json()
    assert await something_waits(session, pool, [])
    assert await something_waits(session, pool, [uuid4()])  # also without a flow run
    row = await session.get_one(JobV2, job["id"])
    row.flow_run_id = uuid4()
    await session.commit()
    assert await something_waits(session, pool, [])
    assert not await something_waits(session, pool, [uuid4(), row.flow_run_id])
    assert not await something_waits(session, f"{pool} of others", [])
    assert not await others_are_open(session, pool, row.flow_run_id)
    assert await others_are_open(session, pool, uuid4())
    assert not await others_are_open(session, f"{pool} of others", uuid4())


@pytest.mark.usefixtures("ended")
async def test_the_flow_run_of_a_job_is_to_stop_when_somebody_says_so(
    runnable: dict[str, Any],
    dataset: dict[str, Any],
    submit: Callable[..., Awaitable[Any]],
    session: AsyncSession,
) -> None:
    job = await session.get_one(JobV2, (await submit(runnable, dataset)).json()["id"])
    job.flow_run_id = flow_run_id = uuid4()
    await session.commit()
    assert not await some_are_to_stop(session, [flow_run_id])
    job.stop_reason = "Enough."
    await session.commit()
    assert await some_are_to_stop(session, [uuid4(), flow_run_id])
    assert not await some_are_to_stop(session, [uuid4()])
    assert not await some_are_to_stop(session, [])


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize(("status", "waits"), [("pending", True), ("ongoing", False)])
async def test_an_activity_waits_until_it_has_begun(
    new_group: Callable[..., Awaitable[TaskGroupV2]],
    session: AsyncSession,
    resource: Resource,
    status: str,
    waits: bool,
) -> None:
    group = await new_group()
    activity = TaskGroupActivityV2(
        user_id=group.user_id,
        taskgroupv2_id=saved_id(group),
        pkg_name=group.pkg_name,
        version=group.version or "",
        status=status,
        action="collect",
    )
    session.add(activity)
    await session.commit()
    assert await something_waits(session, resource.work_pool, []) == waits
    assert await others_are_open(session, resource.work_pool, uuid4())
