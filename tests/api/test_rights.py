"""Who may do what."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

R, RW, RWX, OWNER = "guest r", "guest rw", "guest rwx", "owner"
PEOPLE = (R, RW, RWX, OWNER)

# The operation, and who is the least that may do it.
OPERATIONS = [
    ("GET", "", None, R),
    ("GET", "dataset/", None, R),
    ("GET", "dataset/{dataset}/", None, R),
    ("GET", "dataset/{dataset}/export/", None, R),
    ("POST", "dataset/{dataset}/images/query/", None, R),
    ("GET", "workflow/", None, R),
    ("GET", "workflow/{workflow}/", None, R),
    ("GET", "workflow/{workflow}/wftask/{task}/", None, R),
    ("GET", "workflow/{workflow}/job/", None, R),
    ("GET", "job/", None, R),
    ("GET", "status/run/?dataset_id={dataset}&workflowtask_id={task}", None, R),
    ("POST", "status/images/?dataset_id={dataset}&workflowtask_id={task}", {}, R),
    ("PATCH", "", {"description": "new"}, RW),
    ("POST", "star/", None, RW),
    ("POST", "dataset/", {"name": "another"}, RW),
    ("PATCH", "dataset/{dataset}/", {"name": "renamed"}, RW),
    ("POST", "dataset/{dataset}/images/", {"zarr_url": "/elsewhere/image.zarr"}, RW),
    ("POST", "workflow/", {"name": "another"}, RW),
    ("PATCH", "workflow/{workflow}/", {"description": "new"}, RW),
    ("PATCH", "workflow/{workflow}/wftask/{task}/", {"alias": "new"}, RW),
    ("DELETE", "workflow/{workflow}/wftask/{task}/", None, RW),
    ("DELETE", "workflow/{workflow}/", None, RW),
    ("DELETE", "dataset/{dataset}/", None, RW),
    ("POST", "job/submit/?workflow_id={workflow}&dataset_id={dataset}", {}, RWX),
    ("DELETE", "", None, OWNER),
]
CASES = [
    pytest.param(who, method, path, body, PEOPLE.index(who) >= PEOPLE.index(least))
    for method, path, body, least in OPERATIONS
    for who in PEOPLE
]


@pytest.fixture
def url(
    project: dict[str, Any], dataset: dict[str, Any], runnable: dict[str, Any]
) -> Callable[[str], str]:
    """The URL of a path in the project, with the ids of what is there."""
    ids = {
        "dataset": dataset["id"],
        "workflow": runnable["id"],
        "task": runnable["task_list"][0]["id"],
    }
    return lambda path: f"/api/v2/project/{project['id']}/{path.format(**ids)}"


@pytest.fixture(scope="module")
async def guest(new_person: Callable[..., Awaitable[Any]]) -> Any:
    return await new_person()


@pytest.fixture(scope="module")
async def stranger(new_person: Callable[..., Awaitable[Any]]) -> Any:
    return await new_person()


@pytest.mark.parametrize(("who", "method", "path", "body", "allowed"), CASES)
async def test_members_of_a_project_may_do_what_their_permissions_say(
    who: str,
    method: str,
    path: str,
    body: Any,
    allowed: bool,
    url: Callable[[str], str],
    project: dict[str, Any],
    owner: Any,
    guest: Any,
    invite: Callable[..., Awaitable[None]],
) -> None:
    if who != OWNER:
        await invite(guest, project, who.removeprefix("guest "))
    person = owner if who == OWNER else guest

    answer = await person.request(method, url(path), json=body)

    if allowed:
        assert answer.is_success, answer.text
    else:
        assert answer.status_code == 403, answer.text


@pytest.mark.parametrize(("method", "path", "body", "least"), OPERATIONS)
async def test_a_project_of_others_is_not_there(
    method: str, path: str, body: Any, least: str, url: Callable[[str], str], stranger: Any
) -> None:
    answer = await stranger.request(method, url(path), json=body)

    assert answer.status_code == 404
    assert "Project" in answer.json()["detail"]


async def test_an_invitation_gives_no_rights_before_it_is_accepted(
    url: Callable[[str], str],
    project: dict[str, Any],
    guest: Any,
    invite: Callable[..., Awaitable[None]],
) -> None:
    await invite(guest, project, "rwx", is_verified=False)

    assert (await guest.get(url(""))).status_code == 404
    assert project["id"] not in [
        each["id"] for each in await guest.ok("GET", "/api/v2/project/?is_owner=false")
    ]


async def test_projects_of_others_are_listed_apart(
    project: dict[str, Any], guest: Any, invite: Callable[..., Awaitable[None]]
) -> None:
    await invite(guest, project, "r")

    shared = await guest.ok("GET", "/api/v2/project/?is_owner=false")
    own = await guest.ok("GET", "/api/v2/project/")

    assert project["id"] in [each["id"] for each in shared]
    assert own == []


async def test_a_guest_user_may_look_but_not_change(
    url: Callable[[str], str],
    project: dict[str, Any],
    new_person: Callable[..., Awaitable[Any]],
    invite: Callable[..., Awaitable[None]],
) -> None:
    visitor = await new_person(is_guest=True)
    await invite(visitor, project, "rwx")

    assert (await visitor.get(url(""))).status_code == 200
    assert (await visitor.post(url("star/"))).status_code == 403
    assert (await visitor.post("/api/v2/project/", json={"name": "own"})).status_code == 403


async def test_something_of_another_project_is_not_found_in_this_one(
    owner: Any, dataset: dict[str, Any], workflow: dict[str, Any]
) -> None:
    other = await owner.ok("POST", "/api/v2/project/", json={"name": "an other project"})
    url = f"/api/v2/project/{other['id']}"

    assert (await owner.get(f"{url}/dataset/{dataset['id']}/")).status_code == 404
    assert (await owner.get(f"{url}/workflow/{workflow['id']}/")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/auth/users/",
        "/admin/v2/resource/",
        "/admin/v2/profile/",
    ],
)
async def test_administration_is_for_superusers(
    path: str, owner: Any, admin: Any, anonymous: Any
) -> None:
    assert (await anonymous.get(path)).status_code == 401
    assert (await owner.get(path)).status_code == 403
    assert (await admin.get(path)).status_code == 200


async def test_users_who_are_not_verified_only_see_themselves(
    new_person: Callable[..., Awaitable[Any]],
) -> None:
    person = await new_person(is_verified=False)

    assert (await person.get("/auth/current-user/")).status_code == 200
    answer = await person.get("/api/v2/project/")
    assert answer.status_code == 403
    assert "not verified" in answer.json()["detail"]
