"""Errors as sentences for logs and the Prefect UI."""

import logging
from collections.abc import Iterator

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from fractal_models.errors import FractalError

logger = logging.getLogger(__name__)


def sentence(words: str) -> str:
    """The words with one full stop at the end, as a sentence; an empty text stays empty."""
    words = words.strip()
    return words if not words or words.endswith((".", "!", "?", ".)")) else f"{words}."


def phrase(words: str) -> str:
    """The words without the full stop of a sentence, for use inside another sentence."""
    return words.strip().removesuffix(".")


def words_of(error: BaseException) -> str:
    """An error in words for users, without details that only developers could use.

    An OSError names its file. An error of the database contains only what PostgreSQL said: neither
    the statement nor its parameters, which may be an image list.
    """
    if isinstance(error, SQLAlchemyError):
        cause = getattr(error, "orig", None) or error
        said = str(cause).partition("\n")[0].partition(">: ")
        return sentence(f"The database did not do what was asked: {said[2] or said[0]}")
    if isinstance(error, OSError) and error.strerror:
        where = f": {str(error.filename)!r}" if error.filename is not None else ""
        return sentence(f"{error.strerror}{where}")
    if isinstance(error, ValidationError):
        return sentence("; ".join(_problems(error)))
    if isinstance(error, (FractalError, ValueError)):
        return sentence(str(error)) or f"{type(error).__name__}."
    name, first_line = type(error).__name__, str(error).strip().partition("\n")[0]
    return sentence(f"{name}: {first_line}" if first_line else name)


def told(error: Exception, what: str) -> str:
    """The words of an error. An error that is no FractalError is also logged with its traceback."""
    if not isinstance(error, FractalError):
        logger.error("%s", what, exc_info=error)
    return words_of(error)


def _problems(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        yield f"{'.'.join(map(str, each['loc'])) or error.title}: {each['msg']}"
