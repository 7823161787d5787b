"""The OAuth provider with which users log in, on httpx-oauth: who does it say somebody is?"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import HTTPException
from httpx_oauth.clients.github import GitHubOAuth2
from httpx_oauth.clients.openid import OpenID
from httpx_oauth.exceptions import HTTPXOAuthError
from httpx_oauth.oauth2 import GetAccessTokenError

from api.errors import bad_request
from fractal_models.errors import UnavailableError
from fractal_models.settings import OAuthSettings

_LOGGER = logging.getLogger("fractal.api")
_GOOGLE = "https://accounts.google.com/.well-known/openid-configuration"
_GITHUB_SCOPES = ["read:user", "user:email"]


@dataclass(frozen=True, slots=True)
class Identity:
    """An account at the provider. `is_verified`: its email is known to be of the same person."""

    account_id: str
    email: str
    is_verified: bool


class OAuthProvider:
    """Asks GitHub, Google or any other OpenID Connect provider, as the settings say."""

    def __init__(self, settings: OAuthSettings) -> None:
        self.name = settings.oauth_client_name or ""
        self._settings = settings
        self._client: GitHubOAuth2 | OpenID | None = None

    async def login_url(self, redirect_url: str, state: str) -> str:
        """Where a user is sent to, who comes back to `redirect_url` with a code and the state."""
        with self._its_answers():
            return await (await self._asked()).get_authorization_url(redirect_url, state)

    async def identity(self, code: str, redirect_url: str) -> Identity:
        """Whose code this is."""
        with self._its_answers():
            client = await self._asked()
            token = await client.get_access_token(code, redirect_url)
            if "access_token" not in token:  # GitHub's way to refuse a code
                raise self._refusal(dict(token))
            if isinstance(client, GitHubOAuth2):
                return await _at_github(client, token["access_token"])
            return self._by_claims(await client.get_profile(token["access_token"]))

    def _by_claims(self, claims: dict[str, Any]) -> Identity:
        name = self._settings.oauth_email_claim
        if not claims.get(name):
            raise bad_request(f"{self.name} does not tell your email (as {name!r}).")
        said = claims.get("email_verified") if name == "email" else None
        verified = (
            self._settings.oauth_trust_emails if said is None else str(said).lower() == "true"
        )
        return Identity(str(claims["sub"]), str(claims[name]), verified)

    async def _asked(self) -> GitHubOAuth2 | OpenID:
        """The client, made at its first use: an OpenID provider is asked for its addresses."""
        if self._client is None:
            self._client = await asyncio.to_thread(self._make_client)
        return self._client

    def _make_client(self) -> GitHubOAuth2 | OpenID:
        secret = self._settings.oauth_client_secret
        keys = (str(self._settings.oauth_client_id), secret.get_secret_value() if secret else "")
        if self.name == "github":
            return GitHubOAuth2(*keys, scopes=_GITHUB_SCOPES)
        addresses = self._settings.oauth_oidc_config_endpoint
        return OpenID(*keys, _GOOGLE if self.name == "google" else str(addresses))

    @contextmanager
    def _its_answers(self) -> Iterator[None]:
        """Answer 400 where the provider refuses a code, 503 where it fails."""
        try:
            yield
        except (HTTPXOAuthError, httpx.HTTPError, LookupError, TypeError, ValueError) as error:
            answer = getattr(error, "response", None)
            if isinstance(error, GetAccessTokenError) and answer and answer.is_client_error:
                raise self._refusal(answer.text) from error
            _LOGGER.warning("The login provider %s does not answer: %r", self.name, error)
            raise UnavailableError(
                f"{self.name}, with which users log in, does not answer as it should. "
                "Try again later."
            ) from error

    def _refusal(self, told: object) -> HTTPException:
        _LOGGER.warning("The login provider %s refuses a code: %.500s", self.name, told)
        return bad_request(f"{self.name} does not confirm this login, or not again: begin anew.")


async def _at_github(client: GitHubOAuth2, token: str) -> Identity:
    """By the public email, else by the primary one."""
    profile = await client.get_profile(token)
    emails = {each["email"]: each for each in await client.get_emails(token)}
    email = profile.get("email") or next(each for each in emails if emails[each]["primary"])
    return Identity(str(profile["id"]), email, emails.get(email, {}).get("verified") is True)
