"""Acting as another user, and the table of users."""

import csv
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fractal_models.tables import JobV2, Profile

NewPerson = Callable[..., Awaitable[Any]]


async def test_an_administrator_acts_as_another_user(app: FastAPI, admin: Any, owner: Any) -> None:
    token = await admin.ok("GET", f"/admin/v2/impersonate/{owner.user.id}/")

    assert token["token_type"] == "bearer"
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://fractal") as client:
        client.headers["Authorization"] = f"Bearer {token['access_token']}"
        me = (await client.get("/auth/current-user/")).json()
        forbidden = await client.get("/admin/v2/users-csv/")
    assert me["email"] == owner.user.email
    assert forbidden.status_code == 403


async def test_nobody_acts_as_a_user_who_cannot_log_in(admin: Any, new_person: NewPerson) -> None:
    gone = await new_person(is_active=False)

    assert (await admin.get(f"/admin/v2/impersonate/{gone.user.id}/")).status_code == 422
    assert (await admin.get(f"/admin/v2/impersonate/{10**6}/")).status_code == 404


async def table(admin: Any, **query: Any) -> dict[str, dict[str, str]]:
    answer = await admin.get("/admin/v2/users-csv/", params=query)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    rows = csv.DictReader(io.StringIO(answer.text))
    return {row["email"]: row for row in rows}


async def test_users_are_told_with_their_groups_and_numbers_of_jobs(
    admin: Any,
    new_person: NewPerson,
    profile: Profile,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    busy = await new_person(project_dirs=["/a, b", "/c"], slurm_accounts=["lab", "core"])
    idle = await new_person()
    homeless = await new_person(profile_id=None)
    [group] = [
        name
        for _, name in (await admin.ok("GET", f"/auth/users/{busy.user.id}/"))["group_ids_names"]
    ]
    async with sessions() as session:
        for year in (2024, 2025):
            session.add(
                JobV2(
                    user_email=busy.user.email,
                    fractal_server_version="1",
                    first_task_index=0,
                    last_task_index=0,
                    status="done",
                    start_timestamp=datetime(year, 6, 1, tzinfo=UTC),
                )
            )
        await session.commit()

    every = await table(admin)
    of_2025 = await table(
        admin,
        start_timestamp_min="2025-01-01T00:00:00Z",
        start_timestamp_max="2025-12-31T00:00:00Z",
        exclude_zero_jobs=True,
    )

    assert every[busy.user.email] == {
        "id": str(busy.user.id),
        "email": busy.user.email,
        "slurm_username": profile.username or "",
        "slurm_accounts": "lab|core",
        "project_dirs": "/a, b|/c",
        "user_groups": group,
        "num_jobs": "2",
    }
    assert every[idle.user.email]["num_jobs"] == "0"
    assert homeless.user.email not in every
    assert {email: row["num_jobs"] for email, row in of_2025.items()} == {busy.user.email: "1"}
