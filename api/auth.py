"""Users, passwords and login tokens, on fastapi-users."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from fastapi import Request
from fastapi.security import APIKeyCookie, OAuth2PasswordBearer, OAuth2PasswordRequestForm
from fastapi_users import BaseUserManager, IntegerIDMixin, InvalidPasswordException
from fastapi_users.exceptions import UserAlreadyExists
from fastapi_users.jwt import JWT_ALGORITHM, generate_jwt
from fastapi_users_db_sqlalchemy import SQLAlchemyUserDatabase
from jwt import PyJWTError, decode
from pwdlib.exceptions import UnknownHashError
from pydantic import SecretStr
from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from api.oauth_provider import Identity
from fractal_models.database import release, saved_id
from fractal_models.groups import default_group
from fractal_models.passwords import PasswordError, require_password
from fractal_models.schemas.user import UserCreate
from fractal_models.settings import DatabaseSettings, Settings
from fractal_models.tables import JobV2, LinkUserGroup, OAuthAccount, UserOAuth

LOGIN_COOKIE = "fastapiusersauth"  # the name that Fractal's web client looks for
BEARER = OAuth2PasswordBearer("/auth/token/login/", auto_error=False)
_AUDIENCE = ["fastapi-users:auth"]
COOKIE = APIKeyCookie(name=LOGIN_COOKIE, auto_error=False)

# A hash takes 64 MiB and a good part of a tenth of a second, on purpose: beside the event loop,
# and few at a time.
_HASHING = ThreadPoolExecutor(max_workers=4, thread_name_prefix="passwords")

# Only an administrator who edits a user afterwards sets these.
_NOT_AT_FIRST = {"password", "is_active", "is_superuser", "is_verified"}

Result = TypeVar("Result")


class UserManager(IntegerIDMixin, BaseUserManager[UserOAuth, int]):
    """Logs users in, registers and edits them. Emails differ by more than their case."""

    def __init__(self, session: AsyncSession, settings: DatabaseSettings) -> None:
        super().__init__(SQLAlchemyUserDatabase(session, UserOAuth, OAuthAccount))  # type: ignore[arg-type]
        self._session = session
        self._settings = settings

    async def register(self, request: UserCreate) -> UserOAuth:
        """Commit a new user, a member of the default group.

        Raises:
            InvalidPasswordException: the password breaks the rules.
            UserAlreadyExists: the email is taken.
        """
        await self.validate_password(request.password, request)
        await self._require_free(request.email)
        fields = request.model_dump(exclude=_NOT_AT_FIRST, exclude_none=True)
        user = UserOAuth(**fields, hashed_password=await self._hash(request.password))
        self._session.add(user)
        group = await default_group(self._session, self._settings.default_group)
        await self._session.flush()
        self._session.add(LinkUserGroup(group_id=saved_id(group), user_id=saved_id(user)))
        await self._session.commit()
        await self._session.refresh(user)
        return user

    async def edit(self, user: UserOAuth, changes: Mapping[str, Any]) -> UserOAuth:
        """Commit changes of a user. A new email is to be verified anew, unless they say otherwise.

        A new password ends all login tokens of the user, and so does deactivation.

        Raises:
            InvalidPasswordException: the password breaks the rules.
            UserAlreadyExists: the email is taken.
        """
        fields = dict(changes)
        if "password" in fields:
            await self.validate_password(fields["password"], user)
            fields["hashed_password"] = await self._hash(fields.pop("password"))
        if "hashed_password" in fields or not fields.get("is_active", True):
            fields["login_generation"] = user.login_generation + 1
        if fields.get("email", user.email) != user.email:
            await self._require_free(fields["email"], but_for=user)
            await self._session.exec(  # jobs name their user by email
                update(JobV2)
                .where(col(JobV2.user_email) == user.email)
                .values(user_email=fields["email"])
            )
            fields.setdefault("is_verified", False)
        return await self.user_db.update(user, fields)

    async def log_out(self, user: UserOAuth) -> None:
        """End all login tokens of a user, and commit."""
        await self.user_db.update(user, {"login_generation": user.login_generation + 1})

    async def authenticate(self, credentials: OAuth2PasswordRequestForm) -> UserOAuth | None:
        """The user with this email and password. To find nobody takes as long as a wrong one."""
        user = await self.user_db.get_by_email(credentials.username)
        if user is None:
            await self._hash(credentials.password)
            return None
        try:
            right, newer = await self._beside_the_loop(
                self.password_helper.verify_and_update, credentials.password, user.hashed_password
            )
        except (UnknownHashError, ValueError):
            # E.g. of a user who is only to log in by OAuth; or a password that bcrypt cannot take.
            return None
        # A hash of bcrypt, by fractal-server, is not replaced: it must know it when it gets its
        # database back.
        if right and newer is not None and user.hashed_password.startswith("$argon2"):
            await self.user_db.update(user, {"hashed_password": newer})
        return user if right else None

    async def by_identity(self, provider: str, identity: Identity) -> UserOAuth | None:
        """The user of an account at an OAuth provider, known by it or else by a verified email."""
        user = await self.user_db.get_by_oauth_account(provider, identity.account_id)
        if user is not None or not identity.is_verified:
            return user
        user = await self.user_db.get_by_email(identity.email)
        if user is not None and user.is_active:
            account = OAuthAccount(
                user_id=saved_id(user),
                oauth_name=provider,
                account_id=identity.account_id,
                account_email=identity.email,
                access_token="",  # nothing is asked with it later, so it is not kept
            )
            self._session.add(account)
            await self._session.commit()
        return user

    async def validate_password(self, password: str, user: Any) -> None:
        try:
            require_password(password)
        except PasswordError as error:
            raise InvalidPasswordException(str(error)) from error

    async def _hash(self, password: str) -> str:
        return await self._beside_the_loop(self.password_helper.hash, password)

    async def _beside_the_loop(self, work: Callable[..., Result], *arguments: Any) -> Result:
        await release(self._session)
        return await asyncio.get_running_loop().run_in_executor(_HASHING, work, *arguments)

    async def _require_free(self, email: str, but_for: UserOAuth | None = None) -> None:
        if await self.user_db.get_by_email(email) not in (None, but_for):
            raise UserAlreadyExists


@dataclass(frozen=True, slots=True)
class Claims:
    """Whose a token is, and of which generation; older tokens, without one, are of the first."""

    user_id: int
    generation: int


@dataclass(frozen=True, slots=True)
class LoginTokens:
    """JSON Web Tokens of a generation, which ends when the user's `login_generation` goes on."""

    secret: SecretStr
    lifetime_seconds: int

    async def write_token(self, user: UserOAuth) -> str:
        """A token that logs a user in."""
        claims = {"sub": str(user.id), "aud": _AUDIENCE, "generation": user.login_generation}
        return generate_jwt(claims, self.secret, self.lifetime_seconds, JWT_ALGORITHM)

    def claims(self, token: str | None) -> Claims | None:
        """What a token claims; None if it is wrong or expired."""
        try:
            told = _signed(token or "", self.secret)
            is_over = told.get("exp", math.inf) <= time.time()
            return None if is_over else Claims(int(told["sub"]), told.get("generation", 0))
        except (PyJWTError, LookupError, ValueError):
            return None


@lru_cache(maxsize=1024)
def _signed(token: str, secret: SecretStr) -> Mapping[str, Any]:
    """What a token says that was signed with a secret, which stays so; it may have expired."""
    options: Any = {"verify_exp": False}
    key = secret.get_secret_value()
    return decode(token, key, [JWT_ALGORITHM], audience=_AUDIENCE, options=options)


def login_tokens(settings: Settings, lifetime_seconds: int | None = None) -> LoginTokens:
    """Writes and reads the tokens that log a user in."""
    lifetime = lifetime_seconds or settings.jwt_lifetime_seconds
    return LoginTokens(settings.require_jwt_secret(), lifetime)


async def token_of(request: Request) -> str | None:
    """The login token of a request, from its header or its cookie."""
    return await BEARER(request) or await COOKIE(request)


async def active_user(
    token: str | None, session: AsyncSession, settings: Settings
) -> UserOAuth | None:
    """Who is logged in with a token: nobody, if it is wrong or expired, or of a generation that has
    ended, or of an inactive user."""
    claims = login_tokens(settings).claims(token)
    user = None if claims is None else await session.get(UserOAuth, claims.user_id)
    if claims is None or user is None or user.login_generation != claims.generation:
        return None
    return user if user.is_active else None
