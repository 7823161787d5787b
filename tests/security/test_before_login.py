"""What is read of a request: nothing before it is known who asks, and then no more than fits."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

import api.request_body
from api.app import create_app
from api.auth import login_tokens
from fractal_models.settings import Settings
from tests.people import Person

KIB, MIB = 1 << 10, 1 << 20
LOGIN = "/auth/token/login/"
JSON = "application/json"
FORMS = ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded")


class Stream:
    """A body of 60 MB, which tells how much of it was taken."""

    def __init__(self, chunk: bytes = b"[]," * 340) -> None:
        self.taken = 0
        self._chunk = chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < 60_000_000:
            self.taken += len(self._chunk)
            yield self._chunk


@pytest.fixture(scope="module")
async def nobody(
    new_person: Callable[..., Awaitable[Person]], settings: Settings
) -> dict[str, dict[str, str]]:
    """Headers of those who are not logged in, and how they are not."""
    user = (await new_person()).user
    forged = settings.model_copy(update={"jwt_secret": SecretStr(40 * "x")})
    expired = await login_tokens(settings, -1).write_token(user)
    tokens = {
        "expired": expired,
        "forged": await login_tokens(forged).write_token(user),
        "no token at all": 1000 * "x",
    }
    return {
        "without": {},
        "expired, as a cookie": {"Cookie": f"fastapiusersauth={expired}"},
        "of a user who left": dict((await new_person(is_active=False)).headers),
        **{name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()},
    }


def requests_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every operation of the application, as method and address, and what is none."""
    paths = app.openapi()["paths"]
    for path, operations in {**paths, "/docs": ["get"], "/nothing/there/": ["post"]}.items():
        address = re.sub("{.*?}", "1", path.replace("{client_name}", "github"))
        for method in (*operations, "head", "options", "trace"):
            yield method.upper(), address


async def test_nothing_is_read_of_the_requests_of_nobody(
    app: FastAPI, anonymous: httpx.AsyncClient, nobody: dict[str, dict[str, str]]
) -> None:
    ways = [(JSON, name) for name in nobody] + [(form, "without") for form in FORMS]
    read, answers = {}, set()
    for method, address in requests_of(app):
        for content_type, name in ways:
            body, headers = Stream(), {**nobody[name], "content-type": content_type}
            answer = await anonymous.request(method, address, content=body, headers=headers)
            answers.add(answer.status_code)
            if body.taken:
                read[method, address, content_type, name] = body.taken

    assert {(method, address) for method, address, *_ in read} == {("POST", LOGIN)}
    assert max(read.values()) <= 9 * KIB  # a chunk after the 8 KiB that the form may have
    assert 401 in answers
    assert all(status < 500 for status in answers)


async def test_a_body_that_says_its_size_is_refused_before_it_comes(
    anonymous: httpx.AsyncClient,
) -> None:
    body = Stream()
    headers = {"content-length": "60000000", "content-type": FORMS[1]}
    answer = await anonymous.post(LOGIN, content=body, headers=headers)
    assert answer.status_code == 413
    assert body.taken == 0


@pytest.mark.parametrize(
    ("method", "address", "content_type", "chunk", "most"),
    [
        ("POST", "/api/v2/project/", JSON, b'{"name": "' + KIB * b"x", 16 * MIB),
        ("POST", "/api/v2/project/", JSON, b"[]," * 340, MIB),
        ("POST", "/api/v2/project/", JSON, b'{"a":' * 200, 2 * MIB),
        ("POST", "/api/v2/project/", JSON, b"1," * 512, MIB),
        ("PATCH", "/api/v2/task/1/", "text/plain", KIB * b"x", 16 * MIB),
        ("POST", "/api/v2/task/collect/pip/", FORMS[1], b"a=b&" * 256, 64 * KIB),
        ("POST", "/api/v2/project/1/dataset/import/", FORMS[1], b"a=b&" * 256, 64 * KIB),
        ("POST", "/api/v2/project/1/dataset/import/", JSON, b"[]," * 340, 24 * MIB),
    ],
)
async def test_of_a_user_no_more_is_read_than_fits(
    method: str, address: str, content_type: str, chunk: bytes, most: int, owner: Person
) -> None:
    body = Stream(chunk)
    headers = {"content-type": content_type}
    answer = await owner.request(method, address, content=body, headers=headers)
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["detail"]
    assert body.taken <= most + len(chunk)


@pytest.mark.parametrize("part", ["field", "file"])
async def test_a_form_of_a_million_parts_is_not_read_to_its_end(part: str, owner: Person) -> None:
    name = 'name="a"; filename="a.whl"' if part == "file" else 'name="a"'
    chunk = f"--x\r\nContent-Disposition: form-data; {name}\r\n\r\nb\r\n".encode() * 16
    body = Stream(chunk)
    headers = {"content-type": FORMS[0]}
    answer = await owner.post("/api/v2/task/collect/pip/", content=body, headers=headers)
    assert answer.status_code == 400
    assert body.taken < MIB


async def test_an_image_list_may_be_longer_than_other_json(
    owner: Person, project: dict[str, Any]
) -> None:
    folder = f"{owner.user.project_dirs[0]}/plate"
    images = [
        {"zarr_url": f"{folder}/{number}", "attributes": {"well": "A" * 1000}, "types": {"a": True}}
        for number in range(17_000)
    ]
    body = {"name": "long", "zarr_dir": folder, "images": images}
    await owner.ok("POST", f"/api/v2/project/{project['id']}/dataset/import/", json=body)
    refused = await owner.post("/api/v2/project/", json={"name": "a" * 17 * MIB})
    assert refused.status_code == 413
    assert "FRACTAL_MAX_JSON_MB" in refused.json()["detail"]


async def test_a_sender_that_falls_silent_is_not_waited_for(
    owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.request_body, "_SILENT_SECONDS", 0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield b'{"name": '
        await asyncio.sleep(60)

    answer = await owner.post("/api/v2/project/", content=silent())
    assert answer.status_code == 408


async def test_without_the_database_a_request_with_a_body_is_told_so(
    settings: Settings, owner: Person
) -> None:
    app = create_app(
        settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:9/nothing"})
    )
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://fractal") as client,
    ):
        body = {"name": "project"}
        answer = await client.post("/api/v2/project/", json=body, headers=owner.headers)
    assert answer.status_code == 503


async def test_no_connection_to_the_database_waits_for_a_body(app: FastAPI, owner: Person) -> None:
    pool = app.state.services.sessions.kw["bind"].pool
    held = []

    async def body() -> AsyncIterator[bytes]:
        yield b'{"name": '
        held.append(pool.checkedout())
        yield b'"of a slow sender"}'

    answer = await owner.post("/api/v2/project/", content=body(), headers={"content-type": JSON})
    assert answer.status_code == 201, answer.text
    assert held == [0]
