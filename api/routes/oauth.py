"""Login at an OAuth provider, where one is configured."""

import logging
import secrets
from typing import Annotated

import jwt
from fastapi import APIRouter, Cookie, Depends, Request, Response, status
from fastapi_users.jwt import decode_jwt
from fastapi_users.router.oauth import (
    CSRF_TOKEN_COOKIE_NAME,
    CSRF_TOKEN_KEY,
    STATE_TOKEN_AUDIENCE,
    generate_csrf_token,
    generate_state_token,
)
from pydantic import SecretStr

from api.auth import LOGIN_COOKIE, login_tokens
from api.errors import bad_request
from api.gone_clients import changes_something
from api.oauth_provider import Identity
from api.services import OAuthProviderDep, SettingsDep, UserManagerDep
from fractal_models.schemas.user import OAuthLoginUrl
from fractal_models.settings import Settings
from fractal_models.tables import UserOAuth

_LOGGER = logging.getLogger("fractal.api")
_STATE_SECONDS = 3600

router = APIRouter(prefix="/auth/{client_name}", tags=["Authentication"])


def _redirect_url(request: Request, client_name: str, settings: SettingsDep) -> str:
    """Where the provider sends users back to: to the web client, if there is one."""
    return settings.oauth_redirect_url or str(
        request.url_for(finish_oauth_login.__name__, client_name=client_name)
    )


_RedirectUrl = Annotated[str, Depends(_redirect_url)]


@router.get("/authorize/")
async def begin_oauth_login(
    provider: OAuthProviderDep, back: _RedirectUrl, settings: SettingsDep, response: Response
) -> OAuthLoginUrl:
    """Where to send the user to. A cookie ties the login to this browser."""
    csrf = generate_csrf_token()
    state = generate_state_token(
        {CSRF_TOKEN_KEY: csrf}, settings.require_jwt_secret(), _STATE_SECONDS
    )
    url = await provider.login_url(back, state)
    _set_cookie(response, back, CSRF_TOKEN_COOKIE_NAME, csrf, _STATE_SECONDS)
    return OAuthLoginUrl(authorization_url=url)


@router.get("/callback/", status_code=status.HTTP_204_NO_CONTENT, response_model=None)
@changes_something
async def finish_oauth_login(
    provider: OAuthProviderDep,
    back: _RedirectUrl,
    settings: SettingsDep,
    users: UserManagerDep,
    state: str = "",
    code: str = "",
    error: str = "",
    csrf: Annotated[str, Cookie(alias=CSRF_TOKEN_COOKIE_NAME)] = "",
) -> Response:
    """With what the provider sent the user back: the login token, as a cookie.

    Nobody is registered. The account is linked to the user with its email, if that is verified.
    """
    if error or not code:
        raise bad_request(f"{provider.name} did not log you in: {error or 'it sent no code'}.")
    if not _is_from_here(state, csrf, settings.require_jwt_secret()):
        raise bad_request("This login was not begun in this browser, or too long ago: begin anew.")
    identity = await provider.identity(code, back)
    user = _permitted(await users.by_identity(provider.name, identity), identity, settings)
    token = await login_tokens(settings).write_token(user)
    response = Response(status_code=status.HTTP_204_NO_CONTENT)
    _set_cookie(response, back, LOGIN_COOKIE, token, settings.jwt_lifetime_seconds)
    response.delete_cookie(CSRF_TOKEN_COOKIE_NAME)
    return response


def _is_from_here(state: str, csrf: str, secret: SecretStr) -> bool:
    """Whether a state was signed here, not long ago, for the browser with this cookie."""
    try:
        signed = decode_jwt(state, secret, [STATE_TOKEN_AUDIENCE])
    except jwt.PyJWTError:
        return False
    return secrets.compare_digest(signed[CSRF_TOKEN_KEY].encode(), csrf.encode())


def _permitted(user: UserOAuth | None, identity: Identity, settings: Settings) -> UserOAuth:
    if user is not None and user.is_active:
        return user
    if user is None and not identity.is_verified:
        raise bad_request(
            f"{settings.oauth_client_name} does not say that {identity.email} is verified: "
            "verify it there."
        )
    _LOGGER.warning("Nobody may log in as %s: no active user has this email.", identity.email)
    raise bad_request(
        f"Nobody with the email {identity.email} may use this server. "
        f"Ask an administrator{f': {settings.contact}' if settings.contact else '.'}"
    )


def _set_cookie(response: Response, back: str, name: str, value: str, seconds: int) -> None:
    secure = back.startswith("https://")
    response.set_cookie(name, value, max_age=seconds, secure=secure, httponly=True, samesite="lax")
