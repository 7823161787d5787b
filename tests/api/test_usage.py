"""What was reserved and used, as administrators read it."""

import csv
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.database import saved_id
from fractal_models.tables import Allocation, JobV2, Resource

NEW_YEAR = datetime(2031, 1, 1, tzinfo=UTC)
SINCE = "2030-01-01T00:00:00Z"  # what other tests leave is older


@pytest.fixture
async def people(
    new_person: Callable[..., Awaitable[Any]],
    resource: Resource,
    sessions: async_sessionmaker[AsyncSession],
) -> list[str]:
    """Two users: the first with two jobs, one in each of two years, the second with one here."""
    emails = [(await new_person()).user.email for _ in range(2)]
    on_cluster = {"slurm_job_id": "1_0", "cpus": 4, "mem_mb": 8192, "gpus": 1}
    async with sessions() as session:
        for number, (email, begin, reserved) in enumerate(
            [
                (emails[0], NEW_YEAR - timedelta(hours=2), on_cluster),
                (emails[0], NEW_YEAR, on_cluster),
                (emails[1], NEW_YEAR, {}),
            ]
        ):
            job = JobV2(
                user_email=email,
                project_dump={"id": number, "name": "=1+1"},
                fractal_server_version="1",
                first_task_index=0,
                last_task_index=0,
                status="done",
            )
            session.add(job)
            await session.flush()
            session.add(
                Allocation(
                    job_id=saved_id(job),
                    batch="0_task/batches/parallel",
                    runner=0,
                    resource_id=resource.id,
                    host="node",
                    num_units=10,
                    at_once=2,
                    started_at=begin,
                    ended_at=begin + timedelta(minutes=90),
                    cpu_seconds=3600.0,
                    gb_seconds=1800.0,
                    **reserved,
                )
            )
        await session.commit()
    return emails


AMOUNTS = {
    "num_jobs": 1,
    "num_units": 10,
    "runner_hours": 1.5,
    "cpu_hours_reserved": 6.0,
    "cpu_hours_used": 1.0,
    "gb_hours_reserved": 12.0,
    "gb_hours_used": 0.5,
    "gpu_hours_reserved": 1.5,
}
NOTHING_RESERVED = {"cpu_hours_reserved": 0, "gb_hours_reserved": 0, "gpu_hours_reserved": 0}


async def test_hours_are_summed_up_by_what_is_asked_for(
    admin: Any, people: list[str], resource: Resource
) -> None:
    async def read(query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await admin.ok("GET", f"/admin/v2/usage/?since={SINCE}{query}")
        return [row for row in rows if row.get("user") in (None, *people)]

    first, second = people
    assert await read("&by=user&by=month") == [
        {"user": first, "month": "2030-12", **AMOUNTS},
        {"user": first, "month": "2031-01", **AMOUNTS},
        {"user": second, "month": "2031-01", **AMOUNTS, **NOTHING_RESERVED},
    ]
    january = "&since=2031-01-01T00:00:00Z&until=2031-02-01T00:00:00Z"
    assert await read(f"{january}&by=user") == [
        {"user": first, **AMOUNTS},
        {"user": second, **AMOUNTS, **NOTHING_RESERVED},
    ]
    by_resource = await read("&by=resource&by=user")
    assert [row["resource"] for row in by_resource] == [resource.name] * 2
    assert [row["cpu_hours_used"] for row in by_resource] == [2.0, 1.0]
    assert await read("&since=2040-01-01T00:00:00Z") == []


async def test_what_is_asked_for_cannot_be_another_thing(admin: Any) -> None:
    answer = await admin.request("GET", "/admin/v2/usage/?by=colour")
    assert answer.status_code == 422
    assert "'user', 'group', 'project', 'resource' or 'month'" in answer.text


async def test_usage_is_also_csv_that_a_spreadsheet_does_not_calculate(
    admin: Any, people: list[str]
) -> None:
    path = f"/admin/v2/usage/?since={SINCE}&by=user&by=project&format=csv"
    answer = await admin.request("GET", path)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = [row for row in csv.DictReader(io.StringIO(answer.text)) if row["user"] in people]
    assert [(row["user"], row["project"]) for row in rows] == [
        (people[0], "0 =1+1"),
        (people[0], "1 =1+1"),
        (people[1], "2 =1+1"),
    ]
    assert {row["cpu_hours_used"] for row in rows} == {"1.0"}
