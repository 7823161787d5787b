"""Sharing of projects."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

NewPerson = Callable[..., Awaitable[Any]]


@pytest.fixture
async def guest(new_person: NewPerson) -> Any:
    return await new_person()


@pytest.fixture
def url(project: dict[str, Any]) -> str:
    return f"/api/v2/project/{project['id']}/"


async def invited(owner: Any, url: str, guest: Any, permissions: str = "r") -> int:
    """The status of the answer to an invitation."""
    answer = await owner.post(
        f"{url}guest/", params={"email": guest.user.email}, json={"permissions": permissions}
    )
    status: int = answer.status_code
    return status


async def test_an_invited_user_has_no_right_before_they_accept(
    owner: Any, guest: Any, project: dict[str, Any], url: str
) -> None:
    status = await invited(owner, url, guest, "rw")
    before = await guest.get(url)
    invitations = await guest.ok("GET", "/api/v2/project/invitation/")
    no_access = await guest.get(f"{url}access/")
    listed = await guest.ok("GET", "/api/v2/project/?is_owner=false")
    await guest.ok("POST", f"{url}access/accept/")

    assert status == 201
    assert (before.status_code, no_access.status_code, listed) == (404, 404, [])
    assert invitations == [
        {
            "project_id": project["id"],
            "project_name": project["name"],
            "owner_email": owner.user.email,
            "guest_permissions": "rw",
        }
    ]
    assert await guest.ok("GET", "/api/v2/project/invitation/") == []
    assert await guest.ok("GET", "/api/v2/project/?is_owner=false") == [project]
    assert await guest.ok("GET", "/api/v2/project/") == []
    assert (await guest.patch(url, json={"description": "by a guest"})).status_code == 200


async def test_access_says_what_one_may_do_and_whose_the_project_is(
    owner: Any, guest: Any, url: str
) -> None:
    await invited(owner, url, guest, "r")
    await guest.ok("POST", f"{url}access/accept/")

    email = owner.user.email
    assert await guest.ok("GET", f"{url}access/") == {
        "is_owner": False,
        "permissions": "r",
        "owner_email": email,
    }
    assert await owner.ok("GET", f"{url}access/") == {
        "is_owner": True,
        "permissions": "rwx",
        "owner_email": email,
    }


async def test_an_owner_changes_what_a_guest_may_do_and_ends_it(
    owner: Any, guest: Any, url: str
) -> None:
    query = {"email": guest.user.email}
    await invited(owner, url, guest, "r")
    waiting = await owner.ok("GET", f"{url}guest/")
    await guest.ok("POST", f"{url}access/accept/")
    await owner.ok("PATCH", f"{url}guest/", params=query, json={"permissions": "rwx"})
    joined = await owner.ok("GET", f"{url}guest/")
    deleted = await owner.delete(f"{url}guest/", params=query)

    assert waiting == [{**query, "is_verified": False, "permissions": "r"}]
    assert joined == [{**query, "is_verified": True, "permissions": "rwx"}]
    assert deleted.status_code == 204
    assert (await guest.get(url)).status_code == 404
    assert (await owner.delete(f"{url}guest/", params=query)).status_code == 404
    assert (await owner.get(f"{url}guest/")).json() == []


async def test_emails_are_found_whatever_their_case(owner: Any, guest: Any, url: str) -> None:
    query = {"email": guest.user.email.upper()}

    await owner.ok("POST", f"{url}guest/", params=query, json={"permissions": "r"})

    [found] = await owner.ok("GET", f"{url}guest/")
    assert found["email"] == guest.user.email


async def test_a_guest_leaves_and_an_invitation_is_declined(
    owner: Any, guest: Any, url: str
) -> None:
    for accept in (True, False):
        await invited(owner, url, guest)
        if accept:
            await guest.ok("POST", f"{url}access/accept/")
        assert (await guest.delete(f"{url}access/")).status_code == 204
        assert (await guest.delete(f"{url}access/")).status_code == 404
        assert (await guest.post(f"{url}access/accept/")).status_code == 404
        assert (await guest.get(url)).status_code == 404


async def test_an_owner_cannot_leave_and_is_no_guest(owner: Any, url: str) -> None:
    me = {"email": owner.user.email}

    answers = [
        await owner.delete(f"{url}access/"),
        await owner.post(f"{url}guest/", params=me, json={"permissions": "r"}),
        await owner.patch(f"{url}guest/", params=me, json={"permissions": "r"}),
        await owner.delete(f"{url}guest/", params=me),
    ]

    assert [answer.status_code for answer in answers] == [422] * 4
    assert (await owner.ok("GET", f"{url}access/"))["is_owner"]


async def test_the_same_invitation_at_the_same_time_is_one(
    owner: Any, guest: Any, url: str
) -> None:
    statuses = await asyncio.gather(*(invited(owner, url, guest) for _ in range(5)))

    assert sorted(statuses) == [201, 422, 422, 422, 422]


async def test_an_invitation_is_accepted_or_taken_back_but_never_half(
    owner: Any, guest: Any, url: str
) -> None:
    await invited(owner, url, guest)

    answers = await asyncio.gather(
        *(guest.post(f"{url}access/accept/") for _ in range(3)),
        owner.delete(f"{url}guest/", params={"email": guest.user.email}),
        owner.patch(f"{url}guest/", params={"email": guest.user.email}, json={"permissions": "rw"}),
    )

    assert {answer.status_code for answer in answers} <= {200, 204, 404}
    assert (await guest.get(url)).status_code == 404


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ({"email": "nobody@example.org"}, {"permissions": "r"}, 404),
        ({"email": "no email"}, {"permissions": "r"}, 422),
        ({"email": "nul\0@example.org"}, {"permissions": "r"}, 422),
        ({}, {"permissions": "r"}, 422),
        (None, {"permissions": "x"}, 422),
        (None, {"permissions": None}, 422),
        (None, {}, 422),
    ],
)
async def test_a_wrong_invitation_is_refused(
    query: dict[str, str] | None, body: Any, status: int, owner: Any, guest: Any, url: str
) -> None:
    params = {"email": guest.user.email} if query is None else query

    answer = await owner.post(f"{url}guest/", params=params, json=body)

    assert answer.status_code == status
    assert await owner.ok("GET", f"{url}guest/") == []


async def test_guest_users_are_invited_but_others_accept_for_them(
    owner: Any, admin: Any, new_person: NewPerson, project: dict[str, Any], url: str
) -> None:
    visitor = await new_person(is_guest=True)
    await invited(owner, url, visitor, "rw")
    verify = {"guest_user_id": visitor.user.id, "project_id": project["id"]}

    by_themselves = await visitor.post(f"{url}access/accept/")
    too_much = await admin.post("/admin/v2/linkuserproject/verify/", params=verify)
    await owner.ok(
        "PATCH", f"{url}guest/", params={"email": visitor.user.email}, json={"permissions": "r"}
    )
    accepted = await admin.post("/admin/v2/linkuserproject/verify/", params=verify)
    again = await admin.post("/admin/v2/linkuserproject/verify/", params=verify)

    assert by_themselves.status_code == 403
    assert await visitor.ok("GET", "/api/v2/project/invitation/") == []
    assert (too_much.status_code, accepted.status_code, again.status_code) == (422, 200, 404)
    assert (await visitor.get(url)).status_code == 200
    assert (await visitor.delete(f"{url}access/")).status_code == 403


async def test_others_accept_only_for_guest_users(
    owner: Any, admin: Any, guest: Any, project: dict[str, Any], url: str
) -> None:
    await invited(owner, url, guest)
    verify = {"guest_user_id": guest.user.id, "project_id": project["id"]}

    answer = await admin.post("/admin/v2/linkuserproject/verify/", params=verify)

    assert answer.status_code == 422
    assert (await guest.get(url)).status_code == 404
