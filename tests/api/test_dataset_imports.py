"""The import of a dataset, whose body is read in pieces: all of it counts, or nothing."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

import fractal_models.spooled_images
from fractal_models.settings import Settings
from tests.api.world import serving
from tests.lab import eventually
from tests.people import Person

MANY = 15_000
MIB = 1 << 20
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
async def owner(new_person: Any) -> Person:
    """A user, who has images in /plate."""
    person: Person = await new_person(project_dirs=["/plate"])
    return person


@pytest.fixture
def url(project: dict[str, Any]) -> str:
    return f"/api/v2/project/{project['id']}/dataset/"


def image(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "zarr_url": f"/plate/{number}",
        "origin": None,
        "attributes": {"well": f"A{number}", "n": number},
        "types": {"is_3D": True},
        **fields,
    }


def document(images: list[Any], **fields: Any) -> dict[str, Any]:
    return {"name": "imported", "zarr_dir": "/plate", "images": images, **fields}


async def sent(text: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


async def rows(sessions: async_sessionmaker[AsyncSession]) -> list[int]:
    """How many datasets, images and counts of images there are."""
    counts = [
        f"(SELECT count(*) FROM {table})" for table in ("datasetv2", "datasetimage", "imagefacet")
    ]
    async with sessions() as session:
        return list((await session.execute(text(f"SELECT {', '.join(counts)}"))).one())


def open_files() -> list[str]:
    """The files of this process that are there no more for others."""
    links = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [str(link) for link in links if str(link).endswith("(deleted)")]


@pytest.mark.parametrize("size", [7, 70_000, MIB])
async def test_what_comes_in_pieces_is_imported_as_it_is(
    size: int, owner: Person, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fractal_models.spooled_images, "_BATCH", 5_000)
    given = document([image(number) for number in range(1234)])

    body = json.dumps(given).encode()
    made = await owner.ok("POST", f"{url}import/", content=sent(body, size), headers=JSON)

    assert await owner.ok("GET", f"{url}{made['id']}/export/") == given


async def test_the_order_of_the_fields_does_not_matter(owner: Person, url: str) -> None:
    given = document([image(number) for number in range(3)])
    turned = dict(reversed(given.items()))

    made = await owner.ok("POST", f"{url}import/", json=turned)
    outside = await owner.post(f"{url}import/", json={**turned, "zarr_dir": "/plate/1"})

    assert await owner.ok("GET", f"{url}{made['id']}/export/") == given
    [problem] = outside.json()["detail"]
    assert problem["loc"] == ["body"]
    assert "does not lie in zarr_dir '/plate/1'" in problem["msg"]


async def test_the_folder_itself_may_be_an_image(owner: Person, url: str) -> None:
    images = [image(1, zarr_url="/plate/1/a"), image(1)]
    await owner.ok("POST", f"{url}import/", json=document(images, zarr_dir="/plate/1"))
    beside = document([*images, image(10)], zarr_dir="/plate/1")
    answer = await owner.post(f"{url}import/", json=beside)
    assert "'/plate/10' does not lie in" in answer.json()["detail"][0]["msg"]


WRONG = [
    (image(1), "more than once"),
    (image(-1, zarr_url="relative"), "absolute path"),
    (image(-1, attributes={"a": None}), "null"),
    (image(-1, zarr_url="/elsewhere/1"), "does not lie in"),
    (image(-1, attributes={"a": "\ud800"}), "cannot be written as JSON"),
    ("no image", "dictionary"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG, ids=[told for _, told in WRONG])
async def test_of_an_import_with_something_wrong_late_nothing_stays(
    wrong: Any,
    told: str,
    owner: Person,
    url: str,
    sessions: async_sessionmaker[AsyncSession],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fractal_models.spooled_images, "_BATCH", 5_000)
    before = await rows(sessions)
    images = [image(number) for number in range(1000)]

    body = json.dumps(document([*images, wrong])).encode()
    answer = await owner.post(f"{url}import/", content=body, headers=JSON)

    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])
    assert await rows(sessions) == before


async def test_a_wrong_image_is_told_by_its_number(owner: Person, url: str) -> None:
    images: list[Any] = [image(number) for number in range(MANY)]
    images[12_345] = image(0, attributes={"a": 1, "b": [1]})
    images[14_999] = {"zarr_url": 5, "types": {"a": "x"}}

    answer = await owner.post(f"{url}import/", json=document(images, name="a/b"))

    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [
        ["body", "name"],
        ["body", "images", 12_345, "attributes", "b"],
        ["body", "images", 14_999, "zarr_url"],
        ["body", "images", 14_999, "types", "a"],
    ]


async def test_of_many_wrong_images_the_first_are_told_and_how_many_more_there_are(
    owner: Person, url: str
) -> None:
    answer = await owner.post(f"{url}import/", json=document([{}] * 1_234))

    problems = answer.json()["detail"]
    assert [problem["loc"][2] for problem in problems[:-1]] == list(range(100))
    assert problems[-1]["msg"] == "1,134 more problems."


async def test_images_may_be_missing_but_nothing_else(owner: Person, url: str) -> None:
    made = await owner.ok("POST", f"{url}import/", json={"name": "a", "zarr_dir": "/plate"})
    refused = await owner.post(f"{url}import/", json={"images": None})

    assert (await owner.ok("GET", f"{url}{made['id']}/export/"))["images"] == []
    assert [problem["loc"] for problem in refused.json()["detail"]] == [
        ["body", "name"],
        ["body", "zarr_dir"],
        ["body", "images"],
    ]


async def test_no_more_is_read_of_an_image_than_one_may_have(owner: Person, url: str) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield b'{"images": [{"zarr_url": "/plate/1", "attributes": {"a": "'
        for _ in range(100):
            taken += MIB // 4
            yield b"a" * (MIB // 4)

    answer = await owner.post(f"{url}import/", content=endless(), headers=JSON)

    assert answer.status_code == 413
    assert "An image, or a field beside them" in answer.json()["detail"]
    assert taken <= 2 * MIB


async def test_what_is_no_json_is_read_on_so_that_its_sender_hears_the_answer(
    owner: Person, url: str
) -> None:
    left = 100

    async def body() -> AsyncIterator[bytes]:
        nonlocal left
        yield b'{"images": [}'
        for left in reversed(range(100)):  # noqa: B007
            yield b"a" * 1000

    answer = await owner.post(f"{url}import/", content=body(), headers=JSON)

    assert answer.status_code == 422
    assert answer.json()["detail"] == [
        {"type": "json_invalid", "loc": ["body", 12], "msg": "JSON decode error"}
    ]
    assert left == 0


async def test_others_are_served_after_each_hundred_images(owner: Person, url: str) -> None:
    turns, seen = 0, []

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def body() -> AsyncIterator[bytes]:
        async for chunk in sent(text, len(text) // 10):
            seen.append(turns)
            yield chunk

    text = json.dumps(document([image(number) for number in range(MANY)])).encode()
    served = asyncio.create_task(other())
    await owner.ok("POST", f"{url}import/", content=body(), headers=JSON)
    served.cancel()

    assert min(later - sooner for sooner, later in pairwise(seen)) >= MANY / 10 / 100 - 1


async def test_no_connection_to_the_database_waits_for_an_import(
    app: FastAPI, owner: Person, url: str
) -> None:
    pool = app.state.services.sessions.kw["bind"].pool
    held = []

    async def body() -> AsyncIterator[bytes]:
        async for chunk in sent(json.dumps(document([image(1)])).encode(), 20):
            held.append(pool.checkedout())
            yield chunk

    await owner.ok("POST", f"{url}import/", content=body(), headers=JSON)
    assert set(held) == {0}


@pytest.mark.parametrize("name", ["imported", "a/b"])
async def test_the_file_of_an_import_is_gone_with_it(name: str, owner: Person, url: str) -> None:
    before = open_files()
    images = [image(number) for number in range(MANY)]
    answer = await owner.post(f"{url}import/", json=document(images, name=name))
    assert answer.status_code == (201 if name == "imported" else 422)
    assert open_files() == before


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[str]:
    with serving(settings) as url:
        yield url


@pytest.mark.parametrize("part", [0.5, 0.99999])
async def test_a_body_that_stops_in_the_middle_leaves_nothing(
    part: float,
    served: str,
    owner: Person,
    url: str,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    before, files = await rows(sessions), open_files()
    body = json.dumps(document([image(number) for number in range(MANY)])).encode()
    head = [f"POST {url}import/ HTTP/1.1", "Host: x", "Content-Type: application/json"]
    head += [f"{name}: {value}" for name, value in owner.headers.items()]
    head += [f"Content-Length: {len(body)}", "", ""]
    address = urlsplit(served)

    def send() -> None:
        with socket.create_connection((address.hostname, address.port), timeout=10) as connected:
            connected.sendall("\r\n".join(head).encode() + body[: int(len(body) * part)])

    await asyncio.to_thread(send)
    async with httpx.AsyncClient(base_url=served, headers=owner.headers) as client:
        assert (await client.get(url)).json() == []

    async def left() -> list[str]:
        return [each for each in open_files() if each not in files]

    await eventually(left, lambda now: not now)
    assert await rows(sessions) == before
