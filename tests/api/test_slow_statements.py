"""Statements that take too long, or whose client has gone, end."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from api.services import Services
from fractal_models.settings import Settings
from tests.api.world import serving
from tests.lab import eventually
from tests.people import Person

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[str]:
    """The URL of an API whose statements may take two seconds."""
    with serving(settings.model_copy(update={"statement_seconds": 2})) as url:
        yield url


@pytest.fixture(scope="module")
def patient(settings: Settings) -> Iterator[str]:
    """The URL of one whose statements may take long."""
    with serving(settings) as url:
        yield url


@asynccontextmanager
async def locked(sessions: Sessions, table: str) -> AsyncIterator[None]:
    """Whoever reads or writes the table meanwhile waits."""
    async with sessions() as session:
        await session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield


async def waiting(sessions: Sessions) -> list[str]:
    """The statements that wait for a lock."""
    async with sessions() as session:
        found = await session.execute(
            text(
                "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
        )
        return list(found.scalars())


def asking(url: str, person: Person, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=person.headers, **options)


@pytest.fixture
def images(dataset: dict[str, Any]) -> str:
    return f"/api/v2/project/{dataset['project_id']}/dataset/{dataset['id']}/images/"


async def test_a_statement_that_takes_too_long_is_ended_and_the_answer_says_so(
    served: str, owner: Person, images: str, sessions: Sessions
) -> None:
    async with locked(sessions, "imagefacet"), asking(served, owner, timeout=20) as client:
        answer = await client.post(f"{images}query/", json={})
        assert not await waiting(sessions)
    told = answer.json()["detail"]
    assert answer.status_code == 503
    assert f"took too long for POST {images}query/" in told
    assert "FRACTAL_STATEMENT_SECONDS" in told


async def test_an_export_may_take_longer(
    served: str, owner: Person, images: str, sessions: Sessions
) -> None:
    url = images.removesuffix("images/") + "export/"
    async with locked(sessions, "imagefacet"), asking(served, owner, timeout=4) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url)


@pytest.mark.parametrize(
    ("method", "url", "table"),
    [
        ("GET", "/api/v2/project/", "projectv2"),
        ("POST", "{images}query/", "imagefacet"),
        ("POST", "{images}query/?page_size=10", "imagefacet"),
        ("GET", "{dataset}export/", "imagefacet"),
    ],
)
async def test_a_statement_whose_client_has_gone_is_ended(
    method: str, url: str, table: str, patient: str, owner: Person, images: str, sessions: Sessions
) -> None:
    url = url.format(images=images, dataset=images.removesuffix("images/"))
    body = None if method == "GET" else {}
    async with locked(sessions, table):
        async with asking(patient, owner, timeout=0.5) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.request(method, url, json=body)
        await eventually(lambda: waiting(sessions), lambda now: not now)


async def test_what_changes_something_comes_to_its_end_without_its_client(
    patient: str, owner: Person, images: str, sessions: Sessions
) -> None:
    folder = (await owner.ok("GET", images.removesuffix("images/")))["zarr_dir"]
    image = {"zarr_url": f"{folder}/image"}
    async with locked(sessions, "datasetimage"):
        async with asking(patient, owner, timeout=0.5) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(images, json=image)
        assert len(await waiting(sessions)) == 1

    async def listed() -> int:
        return int((await owner.ok("POST", f"{images}query/", json={}))["total_count"])

    await eventually(listed, bool)


async def test_what_changes_something_is_in_a_transaction_after_what_only_reads(
    owner: Any, project: dict[str, Any], app: FastAPI
) -> None:
    services: Services = app.state.services
    for _ in range(3):
        await owner.ok("GET", f"/api/v2/project/{project['id']}/")
        async with services.sessions() as session:
            transactions = [
                (await session.execute(text("SELECT pg_current_xact_id()::text"))).scalar_one()
                for _ in range(2)
            ]
        assert transactions[0] == transactions[1]
