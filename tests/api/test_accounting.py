"""Accounting, as administrators read it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import saved_id
from fractal_models.tables import AccountingRecord, AccountingRecordSlurm, JobV2, Resource


@pytest.fixture
async def person(new_person: Callable[..., Awaitable[Any]]) -> Any:
    return await new_person()


async def test_records_are_listed_by_user_and_time(
    admin: Any, person: Any, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async with sessions() as session:
        for month in (1, 2, 3):
            session.add(
                AccountingRecord(
                    user_id=person.user.id,
                    timestamp=datetime(2025, month, 1, tzinfo=UTC),
                    num_tasks=month,
                    num_new_images=0,
                )
            )
        await session.commit()

    async def months(query: str = "", **filters: Any) -> list[int]:
        filters["user_id"] = person.user.id
        page = await admin.ok("POST", f"/admin/v2/accounting/{query}", json=filters)
        assert page["current_page"] == 1 if "page=2" not in query else 2
        return [record["num_tasks"] for record in page["items"]]

    assert await months() == [1, 2, 3]
    assert await months("?page_size=2&page=2") == [3]
    assert await months(timestamp_min="2025-02-01T00:00:00Z") == [2, 3]
    assert await months(timestamp_max="2025-02-01T00:00:00Z") == [1, 2]


async def test_slurm_jobs_are_listed_by_job_resource_and_user(
    admin: Any, person: Any, resource: Resource, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async with sessions() as session:
        jobs = [
            JobV2(
                user_email=person.user.email,
                fractal_server_version="1",
                first_task_index=0,
                last_task_index=0,
                status="done",
            )
            for _ in range(2)
        ]
        session.add_all(jobs)
        await session.flush()
        for job, ids, resource_id in zip(
            jobs, ([31, 30], [40]), (saved_id(resource), None), strict=True
        ):
            session.add(
                AccountingRecordSlurm(
                    user_id=person.user.id,
                    slurm_job_ids=ids,
                    fractal_job_id=saved_id(job),
                    resource_id=resource_id,
                )
            )
        await session.commit()

    async def found(**filters: Any) -> Any:
        return await admin.ok("POST", "/admin/v2/accounting/slurm/", json=filters)

    assert await found(user_id=person.user.id) == [31, 30, 40]
    assert await found(fractal_job_id=jobs[1].id) == [40]
    assert await found(user_id=person.user.id, resource_id=resource.id) == [31, 30]
    assert await found(user_id=10**6) == []


@pytest.mark.parametrize("path", ["", "slurm/"])
async def test_a_time_without_a_zone_is_refused(admin: Any, path: str) -> None:
    answer = await admin.post(
        f"/admin/v2/accounting/{path}", json={"timestamp_min": "2025-01-01T00:00:00"}
    )

    assert answer.status_code == 422
