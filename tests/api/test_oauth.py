"""Login at an OAuth provider: a real one of OpenID Connect, on this machine."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi_users.jwt import generate_jwt
from fastapi_users.router.oauth import CSRF_TOKEN_COOKIE_NAME, CSRF_TOKEN_KEY, generate_state_token
from httpx_oauth.clients.github import GitHubOAuth2
from httpx_oauth.oauth2 import OAuth2Token
from oidc_provider_mock import User, run_server_in_thread
from pydantic import SecretStr
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.app import create_app
from api.auth import LOGIN_COOKIE
from api.oauth_provider import OAuthProvider
from fractal_models.settings import OAuthSettings, Settings
from fractal_models.tables import OAuthAccount, UserOAuth

WEB_CLIENT = "https://fractal.example.org/auth/login/oauth2/"
CONTACT = "help@example.org"
BEGIN, FINISH = "/auth/lab/authorize/", "/auth/lab/callback/"
ACCOUNTS: dict[str, dict[str, Any]] = {
    "somebody": {"email": "Somebody@example.org", "email_verified": True},
    "in words": {"email": "words@example.org", "email_verified": "true"},
    "renamed": {"email": "renamed@example.org", "email_verified": True},
    "resigned": {"email": "resigned@example.org", "email_verified": True},
    "unknown": {"email": "unknown@example.org", "email_verified": True},
    "unverified": {"email": "unverified@example.org", "email_verified": False},
    "silent": {"email": "silent@example.org"},
    "without email": {},
}

NewPerson = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A provider with some accounts; its URL."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    users = [User(sub=name, claims=claims) for name, claims in ACCOUNTS.items()]
    with run_server_in_thread(user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def settings(settings: Settings, provider: str) -> Settings:
    changes = {
        "oauth_client_name": "lab",
        "oauth_client_id": "fractal",
        "oauth_client_secret": SecretStr("the secret of fractal"),
        "oauth_oidc_config_endpoint": f"{provider}/.well-known/openid-configuration",
        "oauth_redirect_url": WEB_CLIENT,
        "contact": CONTACT,
    }
    return settings.model_copy(update=changes)


@pytest.fixture
async def browser(app: FastAPI) -> Any:
    """A client with cookies of its own."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://fractal") as client:
        yield client


async def sent_back(browser: httpx.AsyncClient, name: str | None) -> dict[str, str]:
    """Begin a login and log in at the provider, or deny it: what it sends the user back with."""
    url = (await browser.get(BEGIN)).raise_for_status().json()["authorization_url"]
    form = {"action": "deny"} if name is None else {"sub": name}
    async with httpx.AsyncClient() as at_provider:
        answer = await at_provider.post(url, data=form)
    address = answer.headers["location"]
    assert address.startswith(WEB_CLIENT)
    return dict(parse_qsl(urlsplit(address).query))


async def log_in(browser: httpx.AsyncClient, name: str | None) -> httpx.Response:
    return await browser.get(FINISH, params=await sent_back(browser, name))


def cookies_of(answer: httpx.Response) -> dict[str, str]:
    """The cookies that an answer sets, with their attributes."""
    return {
        cookie.partition("=")[0]: cookie.partition("=")[2]
        for cookie in answer.headers.get_list("set-cookie")
    }


async def test_a_user_logs_in_with_an_account_of_the_same_email(
    browser: httpx.AsyncClient, new_person: NewPerson, session: AsyncSession
) -> None:
    person = await new_person(email="somebody@example.org")

    answer = await log_in(browser, "somebody")
    me = (await browser.get("/auth/current-user/")).json()

    assert answer.status_code == 204, answer.text
    token = cookies_of(answer)[LOGIN_COOKIE]
    assert all(part in token for part in ("HttpOnly", "Secure", "SameSite=lax", "Max-Age=86400"))
    assert CSRF_TOKEN_COOKIE_NAME not in browser.cookies
    assert me["id"] == person.user.id
    [account] = me["oauth_accounts"]
    assert (account["oauth_name"], account["account_email"]) == ("lab", "Somebody@example.org")
    [kept] = await session.exec(select(OAuthAccount).where(OAuthAccount.id == account["id"]))
    assert (kept.account_id, kept.access_token, kept.refresh_token) == ("somebody", "", None)


async def test_the_token_of_the_cookie_is_a_bearer_token_too(
    browser: httpx.AsyncClient, anonymous: httpx.AsyncClient, new_person: NewPerson
) -> None:
    """Fractal's web client takes it out of the cookie."""
    await new_person(email="words@example.org")
    await log_in(browser, "in words")
    headers = {"Authorization": f"Bearer {browser.cookies[LOGIN_COOKIE]}"}

    assert (await anonymous.get("/auth/current-user/", headers=headers)).status_code == 200
    assert (await browser.post("/auth/token/logout/")).status_code == 204
    assert (await anonymous.get("/auth/current-user/")).status_code == 401


async def test_an_account_that_is_linked_stays_so(
    browser: httpx.AsyncClient, new_person: NewPerson, session: AsyncSession
) -> None:
    person = await new_person(email="renamed@example.org")
    await log_in(browser, "renamed")
    user = await session.get_one(UserOAuth, person.user.id)
    user.email = "new-name@example.org"
    await session.commit()

    answer = await log_in(browser, "renamed")
    me = (await browser.get("/auth/current-user/")).json()

    assert answer.status_code == 204
    assert me["email"] == "new-name@example.org"
    assert len(me["oauth_accounts"]) == 1


async def test_an_unknown_email_is_not_registered(browser: httpx.AsyncClient, admin: Any) -> None:
    answer = await log_in(browser, "unknown")

    assert answer.status_code == 400
    assert "unknown@example.org" in answer.json()["detail"]
    assert CONTACT in answer.json()["detail"]
    assert LOGIN_COOKIE not in cookies_of(answer)
    emails = [user["email"] for user in await admin.ok("GET", "/auth/users/")]
    assert "unknown@example.org" not in emails


async def test_an_inactive_user_is_refused(
    browser: httpx.AsyncClient, new_person: NewPerson, session: AsyncSession
) -> None:
    await new_person(email="resigned@example.org", is_active=False)

    answer = await log_in(browser, "resigned")

    assert answer.status_code == 400
    assert CONTACT in answer.json()["detail"]
    linked = await session.exec(select(OAuthAccount).where(OAuthAccount.account_id == "resigned"))
    assert linked.first() is None


@pytest.mark.parametrize("name", ["unverified", "silent"])
async def test_an_email_that_is_not_verified_is_not_linked(
    name: str, browser: httpx.AsyncClient, new_person: NewPerson
) -> None:
    await new_person(email=f"{name}@example.org")

    answer = await log_in(browser, name)

    assert answer.status_code == 400
    assert "verify it there" in answer.json()["detail"]


async def test_an_account_needs_an_email(browser: httpx.AsyncClient) -> None:
    answer = await log_in(browser, "without email")

    assert answer.status_code == 400
    assert "your email" in answer.json()["detail"]


async def test_a_user_may_deny_the_login(browser: httpx.AsyncClient) -> None:
    answer = await log_in(browser, None)

    assert answer.status_code == 400
    assert "access_denied" in answer.json()["detail"]


async def test_a_login_that_began_in_another_browser_is_refused(
    app: FastAPI, browser: httpx.AsyncClient
) -> None:
    """Somebody who is sent a link must not be logged in as its sender."""
    stolen = await sent_back(browser, "somebody")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://fractal") as victim:
        await victim.get(BEGIN)

        answer = await victim.get(FINISH, params=stolen)

    assert answer.status_code == 400
    assert "this browser" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["none", "nonsense", "of a login", "expired", "of another server"])
async def test_a_state_that_was_not_made_for_this_is_refused(
    kind: str, browser: httpx.AsyncClient, settings: Settings
) -> None:
    sent = await sent_back(browser, "somebody")
    csrf = {CSRF_TOKEN_KEY: browser.cookies[CSRF_TOKEN_COOKIE_NAME]}
    secret = settings.require_jwt_secret()
    sent["state"] = {
        "none": "",
        "nonsense": "a.b.c",
        "of a login": generate_jwt({**csrf, "sub": "1", "aud": "fastapi-users:auth"}, secret, 60),
        "expired": generate_state_token(dict(csrf), secret, -5),
        "of another server": generate_state_token(dict(csrf), "another secret of 32 characters.."),
    }[kind]

    answer = await browser.get(FINISH, params=sent)

    assert answer.status_code == 400
    assert "begin anew" in answer.json()["detail"]


async def test_a_code_serves_once(browser: httpx.AsyncClient, new_person: NewPerson) -> None:
    sent = await sent_back(browser, "unknown")
    csrf = browser.cookies[CSRF_TOKEN_COOKIE_NAME]
    await browser.get(FINISH, params=sent)
    browser.cookies.set(CSRF_TOKEN_COOKIE_NAME, csrf)

    answer = await browser.get(FINISH, params=sent)

    assert answer.status_code == 400
    assert "begin anew" in answer.json()["detail"]


@pytest.mark.parametrize("client_name", ["github", "LAB", "%00"])
async def test_a_provider_that_is_not_configured_is_not_found(
    client_name: str, browser: httpx.AsyncClient
) -> None:
    assert (await browser.get(f"/auth/{client_name}/authorize/")).status_code == 404
    assert (await browser.get(f"/auth/{client_name}/callback/")).status_code == 404


async def test_a_provider_that_is_away_is_told_and_asked_again(
    settings: Settings, provider: str
) -> None:
    """Neither the start of the server nor logins by password need it."""
    app = create_app(settings.model_copy(update={"oauth_oidc_config_endpoint": "http://[::1]:9"}))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="https://fractal") as client,
    ):
        away = await client.get(BEGIN)
        app.state.services.oauth._settings = settings
        back = await client.get(BEGIN)

    assert away.status_code == 503
    assert "lab" in away.json()["detail"]
    assert back.status_code == 200


async def test_without_a_redirect_url_the_provider_sends_users_to_the_api(
    settings: Settings,
) -> None:
    app = create_app(settings.model_copy(update={"oauth_redirect_url": None}))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://fractal:8000") as client,
    ):
        answer = await client.get(BEGIN)

    sent = dict(parse_qsl(urlsplit(answer.json()["authorization_url"]).query))
    assert sent["redirect_uri"] == f"http://fractal:8000{FINISH}"
    assert sent["scope"] == "openid email"
    assert "Secure" not in cookies_of(answer)[CSRF_TOKEN_COOKIE_NAME]


@pytest.mark.parametrize(
    ("claim", "trust", "claims", "verified"),
    [
        ("email", False, {"email_verified": True}, True),
        ("email", False, {}, False),
        ("email", True, {}, True),
        ("email", True, {"email_verified": False}, False),
        ("mail", True, {"email_verified": False}, True),
    ],
)
def test_emails_are_trusted_as_the_settings_say(
    claim: str, trust: bool, claims: dict[str, Any], verified: bool
) -> None:
    settings = OAuthSettings(oauth_email_claim=claim, oauth_trust_emails=trust)

    identity = OAuthProvider(settings)._by_claims({"sub": 7, claim: "a@example.org", **claims})

    assert identity.account_id == "7"
    assert identity.is_verified is verified


@pytest.mark.parametrize(
    ("public", "email", "verified"),
    [
        (None, "primary@example.org", True),
        ("other@example.org", "other@example.org", False),
        ("hidden@example.org", "hidden@example.org", False),
    ],
)
async def test_github_tells_which_emails_are_verified(
    public: str | None, email: str, verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With answers as GitHub documents them."""
    answers: dict[str, Any] = {
        "get_access_token": OAuth2Token({"access_token": "x", "token_type": "bearer"}),
        "get_profile": {"id": 7, "email": public},
        "get_emails": [
            {"email": "other@example.org", "primary": False, "verified": False},
            {"email": "primary@example.org", "primary": True, "verified": True},
        ],
    }
    for name, answer in answers.items():

        async def tell(*_: Any, answer: Any = answer) -> Any:
            return answer

        monkeypatch.setattr(GitHubOAuth2, name, tell)
    provider = OAuthProvider(
        OAuthSettings(
            oauth_client_name="GitHub", oauth_client_id="x", oauth_client_secret=SecretStr("x")
        )
    )

    url = await provider.login_url(WEB_CLIENT, "state")
    identity = await provider.identity("code", WEB_CLIENT)

    assert url.startswith("https://github.com/login/oauth/authorize?")
    assert (identity.account_id, identity.email) == ("7", email)
    assert identity.is_verified is verified
