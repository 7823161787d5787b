"""Sets passwords at the command line, so that nobody stays locked out."""

from fastapi_users import InvalidPasswordException
from sqlmodel import select

import migrations
from api.auth import UserManager
from fractal_models.database import open_database
from fractal_models.passwords import PasswordError
from fractal_models.settings import DatabaseSettings
from fractal_models.tables import UserOAuth


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
