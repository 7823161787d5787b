"""Sets passwords at the command line, so that nobody stays locked out."""

from fastapi_users import InvalidPasswordException
from sqlmodel import select

import migrations
from api.auth import MIN_PASSWORD_LENGTH, UserManager
from fractal_models.database import open_database
from fractal_models.errors import FractalError
from fractal_models.settings import DatabaseSettings
from fractal_models.tables import UserOAuth


class PasswordError(FractalError):
    """The password cannot be set; the message says why."""


def require_password(password: str) -> str:
    """Return the password if it is allowed.

    Raises:
        PasswordError: the password breaks the rules.
    """
    if len(password) < MIN_PASSWORD_LENGTH or "\0" in password:
        raise PasswordError(
            f"A password has {MIN_PASSWORD_LENGTH} characters or more, and no NUL character."
        )
    return password


async def set_password_of(settings: DatabaseSettings, email: str, password: str) -> None:
    """Give a user a new password, in the same way as if the user had changed it.

    Raises:
        PasswordError: there is no such user, or the password breaks the rules.
        DatabaseUnusableError: the database cannot be reached, or has another schema.
    """
    await migrations.require_newest(settings.async_database_url)
    async with open_database(settings.async_database_url) as sessions, sessions() as session:
        found = await session.exec(select(UserOAuth).where(UserOAuth.email == email))
        if (user := found.unique().first()) is None:
            raise PasswordError(f"There is no user {email!r}.")
        try:
            await UserManager(session, settings).edit(user, {"password": password})
        except InvalidPasswordException as error:
            raise PasswordError(str(error.reason)) from error
