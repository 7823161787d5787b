"""Files of image data over HTTP: who may read which, and in which parts."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.auth import LOGIN_COOKIE
from fractal_models.tables import DatasetV2

CONTENT = bytes(range(256)) * 40  # 10,240 bytes


@pytest.fixture
async def plate(owner: Any, project: dict[str, Any], session: Any, tmp_path: Path) -> Path:
    """The folder of a dataset of the owner, with a chunk and attributes."""
    folder = tmp_path / "plate.zarr"
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "1.2").write_bytes(CONTENT)
    (folder / ".zattrs").write_text('{"plate": {}}')
    (tmp_path / "secret").write_text("not for you")
    session.add(DatasetV2(name="d", project_id=project["id"], zarr_dir=str(folder)))
    await session.commit()
    return folder


async def get(person: httpx.AsyncClient, path: Any, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await person.get(f"/data/files{path}", headers=sent)


async def test_a_file_is_sent_as_it_is(owner: Any, plate: Path) -> None:
    answer = await get(owner, plate / "0" / "1.2")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(CONTENT))
    attributes = await get(owner, plate / ".zattrs")
    assert attributes.json() == {"plate": {}}
    head = await owner.head(f"/data/files{plate}/0/1.2")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(CONTENT))


async def test_a_browser_is_known_by_its_cookie(app: FastAPI, owner: Any, plate: Path) -> None:
    token = owner.headers["Authorization"].removeprefix("Bearer ")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://fractal", cookies={LOGIN_COOKIE: token}
    ) as browser:
        assert (await get(browser, plate / ".zattrs")).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=10000-", 10_000, 10_240),
        ("bytes=-40", 10_200, 10_240),
        ("bytes=-99999", 0, 10_240),
        ("bytes=0-99999", 0, 10_240),
    ],
)
async def test_a_range_is_a_part(
    owner: Any, plate: Path, wanted: str, begin: int, end: int
) -> None:
    answer = await get(owner, plate / "0" / "1.2", range=wanted)
    assert answer.status_code == 206
    assert answer.content == CONTENT[begin:end]
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/10240"


@pytest.mark.parametrize("wanted", ["bytes=10240-", "bytes=-0"])
async def test_a_range_of_which_there_is_nothing_is_refused(
    owner: Any, plate: Path, wanted: str
) -> None:
    answer = await get(owner, plate / "0" / "1.2", range=wanted)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */10240"


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=0-1,3-4",
        "bytes=-",
        "bytes=a-b",
        "lines=1-2",
        "",
        "bytes=20-10",
        "bytes=0-" + "9" * 5000,
    ],
)
async def test_what_is_no_single_range_gets_the_whole(owner: Any, plate: Path, wanted: str) -> None:
    answer = await get(owner, plate / "0" / "1.2", range=wanted)
    assert (answer.status_code, answer.content) == (200, CONTENT)


async def test_what_has_not_changed_is_not_sent_again(owner: Any, plate: Path) -> None:
    path = plate / "0" / "1.2"
    tag = (await get(owner, path)).headers["etag"]
    assert (await get(owner, path, if_none_match=f'"other", {tag}')).status_code == 304
    part = await get(owner, path, range="bytes=0-1", if_range=tag)
    assert part.status_code == 206
    path.write_bytes(CONTENT[::-1])
    assert (await get(owner, path, if_none_match=tag)).status_code == 200
    whole = await get(owner, path, range="bytes=0-1", if_range=tag)
    assert (whole.status_code, whole.content) == (200, CONTENT[::-1])


async def test_the_head_of_a_file_reads_nothing_of_it(owner: Any, plate: Path) -> None:
    with (plate / "huge").open("wb") as file:
        file.truncate(1 << 40)
    head = await owner.head(f"/data/files{plate}/huge")
    assert (head.status_code, head.headers["content-length"]) == (200, str(1 << 40))
    part = await owner.head(f"/data/files{plate}/huge", headers={"range": "bytes=5-"})
    assert (part.status_code, part.headers["content-length"]) == (206, str((1 << 40) - 5))


async def test_a_large_file_is_sent_in_portions(owner: Any, plate: Path) -> None:
    content = CONTENT * 1024  # 10 MiB
    (plate / "large").write_bytes(content)
    assert (await get(owner, plate / "large")).content == content
    part = await get(owner, plate / "large", range="bytes=7-9000006")
    assert part.content == content[7:9_000_007]


TRICKS = [
    "/../secret",
    "/0/../../secret",
    "/%2e%2e/secret",
    "/..%2fsecret",
    "/0/%2e%2e%2f%2e%2e%2fsecret",
    "/link",
    "/folder/secret",
    "-2/0/1.2",
    "",
    "/",
    "/0",
    "/0/",
    "/nothing",
    "/.zattrs%00.png",
    "/" + "x" * 300,
    "/" + "x/" * 1500,
]


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_trick_shows_what_is_not_a_file_of_the_folder(
    owner: Any, plate: Path, trick: str
) -> None:
    (plate / "link").symlink_to(plate.parent / "secret")
    (plate / "folder").symlink_to(plate.parent)
    other = plate.with_name("plate.zarr-2")
    (other / "0").mkdir(parents=True)
    (other / "0" / "1.2").write_text("not for you")
    answer = await get(owner, f"{plate}{trick}")
    assert answer.status_code in (404, 422), answer.text
    assert "not for you" not in answer.text


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "//etc/passwd", "/"])
async def test_what_is_in_no_folder_of_the_user_is_not_there(owner: Any, path: str) -> None:
    assert (await get(owner, path)).status_code == 404


async def test_rights_end_when_they_are_taken_away(
    owner: Any,
    project: dict[str, Any],
    plate: Path,
    new_person: Callable[..., Awaitable[Any]],
    invite: Callable[..., Awaitable[None]],
) -> None:
    guest = await new_person()
    assert (await get(guest, plate / ".zattrs")).status_code == 404
    await invite(guest, project, "r")
    assert (await get(guest, plate / ".zattrs")).status_code == 200
    url = f"/api/v2/project/{project['id']}/guest/?email={guest.user.email}"
    await owner.ok("DELETE", url)
    assert (await get(guest, plate / ".zattrs")).status_code == 404


async def test_the_folder_of_a_user_is_looked_at_without_a_dataset(
    new_person: Callable[..., Awaitable[Any]], plate: Path
) -> None:
    person = await new_person(project_dirs=[str(plate.parent)])
    assert (await get(person, plate / ".zattrs")).status_code == 200
    assert (await get(person, plate.parent / "secret")).status_code == 200


async def test_a_browser_makes_no_page_of_a_file(owner: Any, plate: Path) -> None:
    (plate / "page.html").write_text("<script>alert(1)</script>")
    answer = await get(owner, plate / "page.html")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
