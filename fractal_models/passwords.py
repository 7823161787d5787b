"""Which passwords are allowed. The command line asks it without importing the REST API."""

from fractal_models.errors import FractalError

MIN_PASSWORD_LENGTH = 4


class PasswordError(FractalError):
    """The password cannot be set; the message says why."""


def require_password(password: str) -> str:
    """Return the password if it is allowed.

    Raises:
        PasswordError: the password breaks the rules.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise PasswordError(f"A password has {MIN_PASSWORD_LENGTH} characters or more.")
    if "\0" in password:
        raise PasswordError("A password has no NUL character.")
    return password
