"""What is uploaded: how large it may be, and names of files that are refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from fractal_models.settings import Settings
from fractal_models.tables import Resource

PIXI = {"versions": {"1": "/pixi/1"}, "default_version": "1"}
WHEEL = "some_tasks-1.0-py3-none-any.whl"
HOSTILE = [
    "../../{}",
    "/etc/{}",
    "a\0b{}",
    "$(touch evil){}",
    "a;b{}",
    "a b{}",
    "a\nb{}",
    "-r{}",
    ".{}",
    300 * "a" + "{}",
    "ä{}",
]
MIB = 1 << 20


@pytest.fixture
async def with_pixi(resource: Resource, session: Any) -> AsyncIterator[None]:
    """The resource has pixi."""
    row = await session.get_one(Resource, resource.id)
    row.tasks_pixi_config = PIXI
    await session.commit()
    yield
    row.tasks_pixi_config = {}
    await session.commit()


def multipart(name: str, content: bytes = b"x") -> dict[str, Any]:
    """A form with a file of this very name, which httpx would quote otherwise."""
    head = f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return {
        "content": head.encode() + content + b"\r\n--limit--\r\n",
        "headers": {"content-type": "multipart/form-data; boundary=limit"},
    }


@pytest.mark.usefixtures("with_pixi")
@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize(("kind", "good"), [("pip", WHEEL), ("pixi", "some_tasks-1.0.tar.gz")])
async def test_a_file_of_a_hostile_name_is_refused_and_not_written(
    kind: str, good: str, pattern: str, owner: Any, resource: Resource
) -> None:
    url = f"/api/v2/task/collect/{kind}/"

    answer = await owner.post(url, **multipart(pattern.format(good)))

    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]
    assert not list(Path(resource.tasks_local_dir).rglob("*some_tasks*"))


@pytest.mark.usefixtures("with_pixi")
@pytest.mark.parametrize(
    "name",
    [
        "some_tasks-1.0-py3-none-any;x.whl",
        "some_tasks-1.0-py3-none-$(x).whl",
        "some_tasks-1.0.whl",
        "some_tasks-one-py3-none-any.whl",
    ],
)
async def test_what_is_not_the_name_of_a_wheel_is_refused(name: str, owner: Any) -> None:
    answer = await owner.post("/api/v2/task/collect/pip/", **multipart(name))
    assert answer.status_code == 422


@pytest.mark.usefixtures("with_pixi")
@pytest.mark.parametrize(
    ("name", "form", "told"),
    [
        ("some_tasks.tar.gz", {}, "name-version.tar.gz"),
        ("some-tasks-1.0.tar.gz", {}, "name-version.tar.gz"),
        ("some_tasks-1.0.zip", {}, "name-version.tar.gz"),
        ("some_tasks-.tar.gz", {}, "name-version.tar.gz"),
        ("some_tasks-1.0.tar.gz", {"pixi_version": "2"}, "no pixi 2; it has 1"),
        ("some_tasks-1.0.tar.gz", {"use_pixi_lockfile": "perhaps"}, "boolean"),
    ],
)
async def test_a_wrong_collection_of_a_project_is_refused(
    name: str, form: dict[str, str], told: str, owner: Any
) -> None:
    answer = await owner.post("/api/v2/task/collect/pixi/", files={"file": (name, b"x")}, data=form)
    assert answer.status_code == 422
    assert told in str(answer.json()["detail"])


async def test_a_resource_without_pixi_takes_no_projects(owner: Any) -> None:
    file = {"file": ("some_tasks-1.0.tar.gz", b"x")}
    answer = await owner.post("/api/v2/task/collect/pixi/", files=file)
    assert answer.status_code == 422
    assert "has no pixi" in answer.json()["detail"]


@pytest.mark.usefixtures("with_pixi")
async def test_a_project_without_prefect_leaves_nothing_behind(
    owner: Any, resource: Resource
) -> None:
    file = {"file": ("some_tasks-1.0.tar.gz", b"x")}
    answer = await owner.post("/api/v2/task/collect/pixi/", files=file)
    assert answer.status_code == 503
    assert "some-tasks" not in dict(await owner.ok("GET", "/api/v2/task-group/"))
    assert not (Path(resource.tasks_local_dir) / str(owner.user.id) / "some-tasks").exists()


@pytest.fixture
async def limited(owner: Any, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The user at a server that takes a MiB and no more."""
    app = create_app(settings.model_copy(update={"max_json_mb": 1, "max_upload_mb": 1}))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://fractal", headers=owner.headers
        ) as client,
    ):
        yield client


async def test_a_request_that_says_it_is_too_large_is_refused(limited: httpx.AsyncClient) -> None:
    file = {"file": (WHEEL, bytes(MIB))}
    answer = await limited.post("/api/v2/task/collect/pip/", files=file)
    assert answer.status_code == 413
    assert "FRACTAL_MAX_UPLOAD_MB" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("url", "begin"),
    [
        ("/api/v2/project/", {"content": b'{"name": "', "headers": {}}),
        ("/api/v2/task/collect/pip/", multipart(WHEEL, b"x" * 100)),
    ],
)
async def test_of_a_request_that_does_not_say_its_size_no_more_is_read(
    url: str, begin: dict[str, Any], limited: httpx.AsyncClient
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield begin["content"].partition(b"\r\n--limit--")[0]
        for _ in range(100):
            sent += MIB // 4
            yield b"a" * (MIB // 4)

    answer = await limited.post(url, content=endless(), headers=begin["headers"])
    assert answer.status_code == 413
    assert "more than 1 MiB" in answer.json()["detail"]
    assert sent <= 2 * MIB


async def test_a_request_within_the_limit_is_served(limited: httpx.AsyncClient) -> None:
    file = {"file": ("no.wheel", bytes(MIB // 2))}
    answer = await limited.post("/api/v2/task/collect/pip/", files=file)
    assert answer.status_code == 422
