"""Answers to requests that cannot be served, each with a `detail` that says why."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from flows.engine.client import EngineUnavailableError, UnpublishedError
from flows.process.transport import CommandError, TransportError
from fractal_models.database import DatabaseAwayError, is_outage, is_too_slow
from fractal_models.errors import (
    ForbiddenError,
    FractalError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from fractal_models.exact_json import JsonError
from fractal_models.workflow_exchange import TasksNotFoundError

_LOGGER = logging.getLogger("fractal.api")
_MOST_PROBLEMS, _MOST_OF_AN_INPUT = 100, 100  # those of a request, and its characters


class Problem(BaseModel):
    """What is wrong in one place of a request."""

    type: str
    loc: list[str | int]
    msg: str
    input: str | None = None


class Refusal(BaseModel):
    """Why a request is not served."""

    detail: str | list[Problem]


# Of any endpoint, for the OpenAPI document.
REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Refusal, "description": description}
    for code, description in {
        400: "The request cannot be read, or a login, an email or a password is refused",
        401: "Not logged in",
        403: "The user may see this, but not do it",
        404: "Nothing of that name is there, or not for this user to see",
        408: "The request did not come to its end",
        413: "The request is larger than the server takes it",
        422: "The request is understood, but not possible",
        503: "The database, Prefect or a machine does not answer at present",
    }.items()
}


# Which errors are answers, and with what status. (Any other error is a fault: 500.)
STATUSES: dict[type[FractalError], int] = {
    ForbiddenError: status.HTTP_403_FORBIDDEN,
    NotFoundError: status.HTTP_404_NOT_FOUND,
    RefusedError: status.HTTP_422_UNPROCESSABLE_CONTENT,
    CommandError: status.HTTP_422_UNPROCESSABLE_CONTENT,
    UnavailableError: status.HTTP_503_SERVICE_UNAVAILABLE,
}
_DATABASE_AWAY = "The database cannot serve this request at present. Try again later."


def bad_request(detail: str) -> HTTPException:
    """A login, an email or a password that is refused."""
    return HTTPException(status.HTTP_400_BAD_REQUEST, detail)


def not_logged_in() -> HTTPException:
    """There is no user with this token, or not any more."""
    return HTTPException(
        status.HTTP_401_UNAUTHORIZED,
        "Not logged in: the token is missing, wrong or expired.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def database_away(error: BaseException) -> HTTPException:
    """The database cannot serve the request. (An HTTPException: FastAPI takes any other error in
    the reading of a body for a body that cannot be read.)"""
    _LOGGER.error("The database cannot serve a request: %s", error)
    return HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, _DATABASE_AWAY)


@asynccontextmanager
async def conflicts_as(detail: str) -> AsyncIterator[None]:
    """Refuse, with `detail`, where a flush breaks a uniqueness or a reference."""
    try:
        yield
    except IntegrityError as error:
        raise RefusedError(detail) from error


def add_error_handlers(app: FastAPI) -> None:
    """Turn errors from anywhere in a request into answers."""
    app.exception_handler(RequestValidationError)(_invalid_request)
    for kind in STATUSES:
        app.exception_handler(kind)(_foreseen)
    app.exception_handler(StatementError)(_database_error)
    app.exception_handler(ConnectionError)(_database_away)
    app.exception_handler(NoConnectionError)(_database_away)


async def _invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's list of problems: the first ones, as a body may have 100,000."""
    found = error.errors()
    problems = [_problem(each) for each in found[:_MOST_PROBLEMS]]
    if left_out := len(found) - len(problems):
        problems.append({"type": "more", "loc": [], "msg": f"{left_out:,} more problems."})
    return _answer(status.HTTP_422_UNPROCESSABLE_CONTENT, problems)


def _problem(error: Mapping[str, Any]) -> dict[str, Any]:
    """Without the input, which can be a password or 100,000 images.

    Only where one of a few texts was asked for, clients show what was sent.
    """
    problem = {
        "type": error["type"],
        "loc": [_encodable(part) for part in error["loc"]],
        "msg": _encodable(error["msg"].removeprefix("Value error, ")),
    }
    sent = error.get("input")
    if error["type"] == "literal_error" and isinstance(sent, str):
        problem["input"] = _encodable(sent[:_MOST_OF_AN_INPUT])
    return problem


async def _foreseen(request: Request, error: FractalError) -> JSONResponse:
    """The answer that `STATUSES` names."""
    code = next(code for kind, code in STATUSES.items() if isinstance(error, kind))
    if code == status.HTTP_503_SERVICE_UNAVAILABLE:
        _LOGGER.warning("%s", error)
    content: dict[str, Any] = {"detail": _words(request, error)}
    if isinstance(error, TasksNotFoundError):
        content["data"] = error.outcomes
    return JSONResponse(content, code)


def _words(request: Request, error: FractalError) -> str:
    """What clients are told; where the error does not know it, that nothing was changed."""
    match error:
        case NotFoundError():
            # Of a project and what is in it, clients look for just this text, without the id.
            ids = request.path_params
            if "project_id" in ids and str(error.name) in map(str, ids.values()):
                return f"{error.what} not found"
        case TasksNotFoundError():
            return "[HAS_ERROR_DATA]"  # for which clients look
        case DatabaseAwayError():
            return _DATABASE_AWAY
        case UnpublishedError():
            return f"Nothing was changed. {error}"
        case EngineUnavailableError():
            return (
                "The workflow engine (Prefect) does not answer; nothing was changed. "
                "Try again later."
            )
        case TransportError():
            return f"The machine on which tasks run does not answer; nothing was changed. {error}"
    return str(error)


async def _database_error(request: Request, error: StatementError) -> JSONResponse:
    """Of the SQLSTATE classes, 22 is data that a column cannot hold, 54 what is too long for an
    index, and 23 what broke a rule of the schema although it was looked at before. Before it comes
    to those, a value may be none that JSON can hold."""
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    if sqlstate.startswith(("22", "54")) or isinstance(error.orig, JsonError):
        told = str(error.orig).rpartition(">: ")[2]
        return _answer(
            status.HTTP_422_UNPROCESSABLE_CONTENT, f"A value cannot be stored or looked up: {told}"
        )
    if isinstance(error, IntegrityError):
        _LOGGER.warning("Refused by the schema: %s", error.orig)
        return _answer(
            status.HTTP_422_UNPROCESSABLE_CONTENT,
            "Something that this depends on was changed at the same time. Look again.",
        )
    if is_too_slow(error):
        asked = f"{request.method} {request.url.path}"
        _LOGGER.warning("A statement for %s took too long, and was ended.", asked)
        return _answer(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            f"The database took too long for {asked}, so that was given up. Ask for less at once, "
            "e.g. for a smaller page, or have an administrator raise FRACTAL_STATEMENT_SECONDS.",
        )
    if is_outage(error):
        return await _database_away(request, error)
    raise error


async def _database_away(_: Request, error: Exception) -> JSONResponse:
    away = database_away(error)
    return _answer(away.status_code, away.detail)


def _encodable(part: Any) -> Any:
    """Without halves of surrogate pairs: JSON can hold them, an answer cannot."""
    return part.encode(errors="replace").decode() if isinstance(part, str) else part


def _answer(status_code: int, detail: object) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status_code)
