"""Login tokens end when they should, and not before."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jwt
import pytest
from fastapi_users.jwt import generate_jwt
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import LOGIN_COOKIE
from fractal_models.settings import Settings
from fractal_models.tables import UserOAuth
from tests.people import Person

FIRST, SECOND = "the first one", "the second one"


class Account:
    """A user with a password, who logs in at several places."""

    def __init__(self, admin: Person, anonymous: httpx.AsyncClient, user: dict[str, Any]) -> None:
        self.admin = admin
        self.anonymous = anonymous
        self.user = user
        self.url = f"/auth/users/{user['id']}/"

    async def log_in(self, password: str = FIRST) -> str:
        form = {"username": self.user["email"], "password": password}
        answer = await self.anonymous.post("/auth/token/login/", data=form)
        return str(answer.raise_for_status().json()["access_token"])

    async def change(self, **fields: Any) -> None:
        await self.admin.ok("PATCH", self.url, json=fields)

    async def is_served(self, token: str) -> bool:
        """Whether requests with the token are: without a body, with one, with a cookie, for lists.

        (The user may not see those, but is known.)
        """
        bearer = {"Authorization": f"Bearer {token}"}
        cookie = {"Cookie": f"{LOGIN_COOKIE}={token}"}
        me = "/auth/current-user/"
        answers = {
            (await self.anonymous.get(me, headers=bearer)).status_code,
            (await self.anonymous.get(me, headers=cookie)).status_code,
            (await self.anonymous.patch(me, headers=bearer, json={})).status_code,
        }
        assert answers in ({200}, {401})
        lists = {
            (await self.anonymous.get(url, headers=bearer)).status_code
            for url in ("/api/v2/project/", "/api/v2/project/1/dataset/", "/auth/users/")
        }
        assert lists == ({403} if answers == {200} else {401})
        return answers == {200}


@pytest.fixture
async def account(admin: Person, anonymous: httpx.AsyncClient) -> Account:
    number = len(await admin.ok("GET", "/auth/users/"))
    body = {"email": f"account{number}@example.org", "password": FIRST, "project_dirs": ["/data"]}
    return Account(admin, anonymous, await admin.ok("POST", "/auth/register/", json=body))


async def test_a_new_password_ends_all_tokens_and_new_ones_are_served(account: Account) -> None:
    tokens = [await account.log_in(), await account.log_in()]
    assert [await account.is_served(token) for token in tokens] == [True, True]

    await account.change(password=SECOND)

    assert [await account.is_served(token) for token in tokens] == [False, False]
    assert await account.is_served(await account.log_in(SECOND))


@pytest.mark.parametrize(
    "changes",
    [
        {"is_active": True},
        {"is_verified": True},
        {"slurm_accounts": ["lab"]},
        {"email": "renamed@example.org"},
    ],
)
async def test_other_changes_end_no_token(changes: dict[str, Any], account: Account) -> None:
    token = await account.log_in()
    await account.change(**changes)
    assert await account.is_served(token)


async def test_who_becomes_active_again_has_to_log_in_again(account: Account) -> None:
    token = await account.log_in()
    await account.change(is_active=False)
    await account.change(is_active=True)
    assert not await account.is_served(token)
    assert await account.is_served(await account.log_in())


async def test_administrators_log_a_user_out_everywhere(account: Account, owner: Person) -> None:
    token = await account.log_in()
    acting = await account.admin.ok("GET", f"/admin/v2/impersonate/{account.user['id']}/")

    refused = await owner.post(f"{account.url}log-out/")
    await account.admin.ok("POST", f"{account.url}log-out/")

    assert refused.status_code == 403
    assert not await account.is_served(token)
    assert not await account.is_served(acting["access_token"])
    assert await account.is_served(await account.log_in())
    assert (await owner.get("/auth/current-user/")).status_code == 200


async def test_administrators_can_log_themselves_out(
    new_person: Callable[..., Awaitable[Person]],
) -> None:
    admin = await new_person(is_superuser=True)
    await admin.ok("POST", f"/auth/users/{admin.user.id}/log-out/")
    assert (await admin.get("/auth/users/")).status_code == 401


async def test_a_newer_hash_of_the_same_password_ends_no_token(
    account: Account, session: AsyncSession
) -> None:
    token = await account.log_in()
    user = await session.get_one(UserOAuth, account.user["id"])
    cheap = Argon2Hasher(time_cost=1, memory_cost=1024).hash(FIRST)
    user.hashed_password = cheap
    await session.commit()
    await account.log_in()
    await session.refresh(user)
    assert user.hashed_password != cheap
    assert await account.is_served(token)


async def test_tokens_of_before_there_were_generations_last_until_a_new_password(
    account: Account, settings: Settings
) -> None:
    claims = {"sub": str(account.user["id"]), "aud": ["fastapi-users:auth"]}
    token = generate_jwt(claims, settings.require_jwt_secret(), 3600)
    assert await account.is_served(token)
    await account.change(password=SECOND)
    assert not await account.is_served(token)


async def test_a_generation_cannot_be_chosen(account: Account) -> None:
    await account.change(password=SECOND)
    token = await account.log_in(SECOND)
    claims = jwt.decode(token, options={"verify_signature": False})
    for generation in (0, 1, "1", None):
        forged = jwt.encode({**claims, "generation": generation}, 40 * "x", algorithm="HS256")
        assert not await account.is_served(forged)
