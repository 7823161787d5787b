"""Answers to requests that cannot be served, each with a `detail` that says why."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, IntegrityError

from flows.engine import EngineUnavailableError
from flows.launchers.of_job import ProfileMissingError
from flows.launchers.transport import CommandError, TransportError
from flows.pauses import PauseRefusedError
from flows.submission import JobRefusedError
from fractal_models.database import is_outage
from fractal_models.rights import ForbiddenError, NotFoundError

_LOGGER = logging.getLogger("fractal.api")


def bad_request(detail: str) -> HTTPException:
    """A login, an email or a password that is refused."""
    return HTTPException(status.HTTP_400_BAD_REQUEST, detail)


def unprocessable(detail: str) -> HTTPException:
    """The request is understood, but not possible."""
    return HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, detail)


def unavailable(detail: str) -> HTTPException:
    """Something that is needed does not answer at present."""
    return HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, detail)


@asynccontextmanager
async def conflicts_as(detail: str) -> AsyncIterator[None]:
    """Answer 422 with `detail` where a flush breaks a uniqueness or a reference."""
    try:
        yield
    except IntegrityError as error:
        raise unprocessable(detail) from error


def add_error_handlers(app: FastAPI) -> None:
    """Turn errors from anywhere in a request into answers."""
    app.exception_handler(RequestValidationError)(_invalid_request)
    app.exception_handler(NotFoundError)(_not_found)
    app.exception_handler(ForbiddenError)(_forbidden)
    app.exception_handler(JobRefusedError)(_refused)
    app.exception_handler(PauseRefusedError)(_refused)
    app.exception_handler(EngineUnavailableError)(_engine_away)
    app.exception_handler(TransportError)(_machine_away)
    app.exception_handler(CommandError)(_refused)
    app.exception_handler(ProfileMissingError)(_refused)
    app.exception_handler(DBAPIError)(_database_error)
    app.exception_handler(ConnectionError)(_database_away)


async def _invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's list of problems, without the input (it can be a password or 100,000 images)."""
    problems = [
        {
            "type": problem["type"],
            "loc": problem["loc"],
            "msg": problem["msg"].removeprefix("Value error, "),
        }
        for problem in error.errors()
    ]
    return _answer(status.HTTP_422_UNPROCESSABLE_CONTENT, problems)


async def _engine_away(_: Request, error: EngineUnavailableError) -> JSONResponse:
    _LOGGER.warning("%s", error)
    return _answer(
        status.HTTP_503_SERVICE_UNAVAILABLE,
        "The workflow engine (Prefect) does not answer; nothing was changed. Try again later.",
    )


async def _machine_away(_: Request, error: TransportError) -> JSONResponse:
    _LOGGER.warning("%s", error)
    return _answer(
        status.HTTP_503_SERVICE_UNAVAILABLE,
        f"The machine on which tasks run does not answer; nothing was changed. {error}",
    )


async def _not_found(_: Request, error: NotFoundError) -> JSONResponse:
    return _answer(status.HTTP_404_NOT_FOUND, str(error))


async def _forbidden(_: Request, error: ForbiddenError) -> JSONResponse:
    return _answer(status.HTTP_403_FORBIDDEN, str(error))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """What is asked for cannot be done, as a job or where tasks run."""
    return _answer(status.HTTP_422_UNPROCESSABLE_CONTENT, str(error))


async def _database_error(request: Request, error: DBAPIError) -> JSONResponse:
    """Of the SQLSTATE classes, 22 is data that a column cannot hold."""
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    if sqlstate.startswith("22"):
        told = str(error.orig).rpartition(">: ")[2]
        return _answer(
            status.HTTP_422_UNPROCESSABLE_CONTENT, f"A value cannot be stored or looked up: {told}"
        )
    if is_outage(error):
        return await _database_away(request, error)
    raise error


async def _database_away(_: Request, error: Exception) -> JSONResponse:
    _LOGGER.error("The database cannot serve a request: %s", error)
    return _answer(
        status.HTTP_503_SERVICE_UNAVAILABLE,
        "The database cannot serve this request at present. Try again later.",
    )


def _answer(status_code: int, detail: object) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status_code)
