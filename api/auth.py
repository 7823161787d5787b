"""Users, passwords and login tokens, on fastapi-users."""

from collections.abc import Mapping
from typing import Any

from fastapi_users import BaseUserManager, IntegerIDMixin, InvalidPasswordException
from fastapi_users.authentication import JWTStrategy
from fastapi_users.exceptions import UserAlreadyExists
from fastapi_users_db_sqlalchemy import SQLAlchemyUserDatabase
from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from api.queries.users import default_group
from fractal_models.database import saved_id
from fractal_models.schemas.user import UserCreate
from fractal_models.settings import Settings
from fractal_models.tables import JobV2, LinkUserGroup, UserOAuth

MIN_PASSWORD_LENGTH = 4


class UserManager(IntegerIDMixin, BaseUserManager[UserOAuth, int]):
    """Logs users in, registers and edits them. Emails differ by more than their case."""

    def __init__(self, session: AsyncSession, settings: Settings) -> None:
        super().__init__(SQLAlchemyUserDatabase(session, UserOAuth))
        self._session = session
        self._settings = settings

    async def register(self, request: UserCreate) -> UserOAuth:
        """Commit a new user, a member of the default group.

        Raises:
            InvalidPasswordException: the password breaks the rules.
            UserAlreadyExists: the email is taken.
        """
        await self.validate_password(request.password, request)
        if await self.user_db.get_by_email(request.email) is not None:
            raise UserAlreadyExists
        fields = request.model_dump(exclude={"password"}, exclude_none=True)
        user = UserOAuth(**fields, hashed_password=self.password_helper.hash(request.password))
        self._session.add(user)
        group = await default_group(self._session, self._settings.default_group)
        await self._session.flush()
        self._session.add(LinkUserGroup(group_id=saved_id(group), user_id=saved_id(user)))
        await self._session.commit()
        await self._session.refresh(user)
        return user

    async def edit(self, user: UserOAuth, changes: Mapping[str, Any]) -> UserOAuth:
        """Commit changes of a user. A new email is to be verified anew, unless they say otherwise.

        Raises:
            InvalidPasswordException: the password breaks the rules.
            UserAlreadyExists: the email is taken.
        """
        if "email" in changes:  # jobs name their user by email
            await self._session.exec(
                update(JobV2)
                .where(col(JobV2.user_email) == user.email)
                .values(user_email=changes["email"])
            )
        # is_verified last: setting the email resets it
        ordered = sorted(changes.items(), key=lambda change: change[0] == "is_verified")
        return await self._update(user, dict(ordered))

    async def validate_password(self, password: str, user: Any) -> None:
        if len(password) < MIN_PASSWORD_LENGTH:
            raise InvalidPasswordException(
                f"A password has {MIN_PASSWORD_LENGTH} characters or more."
            )
        if "\0" in password:
            raise InvalidPasswordException("A password has no NUL character.")


def login_tokens(
    settings: Settings, lifetime_seconds: int | None = None
) -> JWTStrategy[UserOAuth, int]:
    """Writes and reads the tokens that log a user in."""
    lifetime = lifetime_seconds or settings.jwt_lifetime_seconds
    return JWTStrategy(settings.require_jwt_secret(), lifetime)
