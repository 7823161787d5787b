"""Long answers are read in pieces from PostgreSQL: they are whole, of one moment, or an error."""

import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries import images as answers
from fractal_models import image_pages
from fractal_models.image_search import ImageSearch
from fractal_models.settings import Settings
from tests.api.history_rows import write_done_units
from tests.api.test_dataset_imports import open_files
from tests.api.world import serving
from tests.lab import eventually
from tests.people import Person

Sessions = async_sessionmaker[AsyncSession]
MANY = 5_000  # of some blocks
IMAGES = [
    {
        "zarr_url": f"/plate/{number}",
        "origin": None,
        "attributes": {"well": f"A{number % 3}", 'quoted "ä"\\': "ü\n"},
        "types": {"is_3D": number % 2 == 0},
    }
    for number in range(MANY)
]


@pytest.fixture(scope="module")
async def owner(new_person: Any) -> Person:
    person: Person = await new_person(project_dirs=["/plate"])
    return person


@pytest.fixture(scope="module")
async def base(owner: Person) -> str:
    project = await owner.ok("POST", "/api/v2/project/", json={"name": "long"})
    return f"/api/v2/project/{project['id']}"


@pytest.fixture(scope="module")
async def url(owner: Person, base: str) -> str:
    """A dataset with IMAGES."""
    document = {"name": "long", "zarr_dir": "/plate", "images": IMAGES}
    made = await owner.ok("POST", f"{base}/dataset/import/", json=document)
    return f"{base}/dataset/{made['id']}/"


@pytest.fixture(scope="module")
async def task(owner: Person, base: str, url: str, sessions: Sessions) -> str:
    """The ids, as parameters, of a workflow task that is done on all images."""
    task = await owner.ok(
        "POST", "/api/v2/task/", json={"name": "t", "version": "1", "command_parallel": "true"}
    )
    workflow = await owner.ok("POST", f"{base}/workflow/", json={"name": "w"})
    made = await owner.ok(
        "POST", f"{base}/workflow/{workflow['id']}/wftask/", json=[{"task_id": task["id"]}]
    )
    dataset, of_task = int(url.split("/")[-2]), made[0]["id"]
    async with sessions() as session:
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        await write_done_units(session, dataset, of_task, 1)
        await session.commit()
    return f"dataset_id={dataset}&workflowtask_id={of_task}"


QUERIES = [
    {},
    {"attribute_filters": {"well": ["A1"]}},
    {"attribute_filters": {"well": ["A1", "A2"]}, "type_filters": {"is_3D": True}},
    {"type_filters": {"unknown": True}},
]
PAGES = ["", "page_size=1100", "page_size=1100&page=2", "page_size=1100&page=1000"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("query", QUERIES, ids=str)
async def test_a_page_is_the_same_in_pieces_and_as_one_string(
    page: str,
    query: dict[str, Any],
    owner: Person,
    base: str,
    url: str,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [f"{url}images/query/?{page}", f"{base}/status/images/?{task}&{page}"]
    monkeypatch.setattr(image_pages, "_BLOCKS_AT_ONCE", 2)
    for address in asked:
        in_pieces = await owner.ok("POST", address, json=query)
        with monkeypatch.context() as patch:
            patch.setattr(answers, "_SHORT", MANY)
            whole = address if page else f"{address}&page_size={MANY}"
            at_once = await owner.ok("POST", whole, json=query)
        if not page:
            at_once["page_size"] = at_once["total_count"]
        assert in_pieces == at_once


async def test_an_export_is_what_was_imported(owner: Person, url: str) -> None:
    assert await owner.ok("GET", f"{url}export/") == {
        "name": "long",
        "zarr_dir": "/plate",
        "images": IMAGES,
    }


@pytest.fixture
def between_pieces(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[int]]:
    """Has a statement executed by somebody else before the third piece of an answer is read."""
    monkeypatch.setattr(image_pages, "_BLOCKS_AT_ONCE", 1)
    run, calls = ImageSearch.run, [0]

    def arrange(statement: str) -> list[int]:
        async def running(*arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] == 4:
                async with sessions() as session:
                    await session.execute(text(statement))
                    await session.commit()
            return await run(*arguments)

        monkeypatch.setattr(ImageSearch, "run", running)
        return calls

    return arrange


async def test_what_changes_while_it_is_read_is_not_in_it(
    owner: Person, url: str, between_pieces: Callable[[str], list[int]]
) -> None:
    calls = between_pieces("DELETE FROM datasetimage WHERE zarr_url LIKE '/plate/4%'")
    exported = await owner.ok("GET", f"{url}export/")
    assert exported["images"] == IMAGES
    assert calls[0] > 4
    left = [each for each in IMAGES if not str(each["zarr_url"]).startswith("/plate/4")]
    assert (await owner.ok("GET", f"{url}export/"))["images"] == left


@pytest.mark.parametrize(("method", "path"), [("GET", "export/"), ("POST", "images/query/")])
async def test_an_error_in_the_middle_is_an_error_and_no_shorter_answer(
    method: str,
    path: str,
    owner: Person,
    url: str,
    between_pieces: Callable[[str], list[int]],
) -> None:
    calls = between_pieces(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    answer = await owner.request(method, f"{url}{path}")
    assert calls[0] == 4
    assert answer.status_code == 503
    assert "database" in answer.json()["detail"]


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[str]:
    with serving(settings) as url:
        yield url


async def test_a_download_holds_no_connection_to_the_database_and_says_its_length(
    app: FastAPI, owner: Person, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.long_answers._CHUNK", 1000)
    pool = app.state.services.sessions.kw["bind"].pool
    held: list[int] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            held.append(pool.checkedout())
            await send(message)

        await app(scope, receive, sending)

    transport = httpx.ASGITransport(app=watched)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://fractal", headers=owner.headers
    ) as client:
        answer = await client.get(f"{url}export/")
    assert set(held) == {0}
    assert len(held) > 100
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_the_file_of_an_answer_is_gone_when_its_client_goes(
    served: str, owner: Person, url: str
) -> None:
    before = open_files()
    folder = "/plate"
    images = [{"zarr_url": f"{folder}/{n}", "attributes": {"a": "x" * 1000}} for n in range(9000)]
    document = {"name": "large", "zarr_dir": folder, "images": images}
    project = url.partition("/dataset/")[0]
    made = await owner.ok("POST", f"{project}/dataset/import/", json=document)
    head = [f"GET {project}/dataset/{made['id']}/export/ HTTP/1.1", "Host: x"]
    head += [f"{name}: {value}" for name, value in owner.headers.items()]
    address = urlsplit(served)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connected:
        connected.sendall("\r\n".join([*head, "", ""]).encode())
        assert b" 200 " in connected.recv(1000)
        assert len(open_files()) > len(before)

    async def left() -> list[str]:
        return [each for each in open_files() if each not in before]

    await eventually(left, lambda now: not now)
