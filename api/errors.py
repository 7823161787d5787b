"""Answers to requests that cannot be served, each with a `detail` that says why."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from flows.accounts import ProfileError
from flows.activities.package_tasks import PackageError
from flows.engine import EngineUnavailableError, UnpublishedError
from flows.launchers.transport import CommandError, TransportError
from flows.pauses import PauseRefusedError
from flows.submission import JobRefusedError
from fractal_models.database import is_outage
from fractal_models.exact_json import JsonError
from fractal_models.rights import ForbiddenError, NotFoundError
from fractal_models.workflow_tasks import UnfitError

_LOGGER = logging.getLogger("fractal.api")
_MOST_SHOWN = 100


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


def unprocessable(detail: str) -> HTTPException:
    """The request is understood, but not possible."""
    return HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, detail)


def unavailable(detail: str) -> HTTPException:
    """Something that is needed does not answer at present."""
    return HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, detail)


def database_away(error: BaseException) -> HTTPException:
    """The database cannot serve the request."""
    _LOGGER.error("The database cannot serve a request: %s", error)
    return unavailable("The database cannot serve this request at present. Try again later.")


class ErrorWithData(Exception):
    """The request is understood, but not possible; what clients can do about it is in the data."""

    def __init__(self, data: list[dict[str, Any]]) -> None:
        super().__init__(data)
        self.data = data


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
    app.exception_handler(ErrorWithData)(_with_data)
    app.exception_handler(NotFoundError)(_not_found)
    app.exception_handler(ForbiddenError)(_forbidden)
    app.exception_handler(JobRefusedError)(_refused)
    app.exception_handler(PauseRefusedError)(_refused)
    app.exception_handler(PackageError)(_refused)
    app.exception_handler(EngineUnavailableError)(_engine_away)
    app.exception_handler(TransportError)(_machine_away)
    app.exception_handler(CommandError)(_refused)
    app.exception_handler(ProfileError)(_refused)
    app.exception_handler(UnfitError)(_refused)
    app.exception_handler(DBAPIError)(_database_error)
    app.exception_handler(StatementError)(_unstorable)
    app.exception_handler(ConnectionError)(_database_away)
    app.exception_handler(NoConnectionError)(_database_away)


async def _invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's list of problems."""
    problems = [_problem(each) for each in error.errors()]
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
        problem["input"] = _encodable(sent[:_MOST_SHOWN])
    return problem


async def _with_data(_: Request, error: ErrorWithData) -> JSONResponse:
    """Clients look for just this detail, and then tell their users what is in the data."""
    return JSONResponse(
        {"detail": "[HAS_ERROR_DATA]", "data": error.data},
        status.HTTP_422_UNPROCESSABLE_CONTENT,
    )


async def _engine_away(_: Request, error: EngineUnavailableError) -> JSONResponse:
    _LOGGER.warning("%s", error)
    told = "The workflow engine (Prefect) does not answer; nothing was changed. Try again later."
    if isinstance(error, UnpublishedError):
        told = f"Nothing was changed. {error}"
    return _answer(status.HTTP_503_SERVICE_UNAVAILABLE, told)


async def _machine_away(_: Request, error: TransportError) -> JSONResponse:
    _LOGGER.warning("%s", error)
    return _answer(
        status.HTTP_503_SERVICE_UNAVAILABLE,
        f"The machine on which tasks run does not answer; nothing was changed. {error}",
    )


async def _not_found(request: Request, error: NotFoundError) -> JSONResponse:
    """Of a project and what is in it, clients look for just this text, without the id."""
    ids = request.path_params
    if "project_id" in ids and str(error.name) in map(str, ids.values()):
        return _answer(status.HTTP_404_NOT_FOUND, f"{error.what} not found")
    return _answer(status.HTTP_404_NOT_FOUND, str(error))


async def _forbidden(_: Request, error: ForbiddenError) -> JSONResponse:
    return _answer(status.HTTP_403_FORBIDDEN, str(error))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """What is asked for cannot be done, as a job, in a workflow or where tasks run."""
    return _answer(status.HTTP_422_UNPROCESSABLE_CONTENT, str(error))


async def _database_error(request: Request, error: DBAPIError) -> JSONResponse:
    """Of the SQLSTATE classes, 22 is data that a column cannot hold, 54 what is too long for an
    index, and 23 what broke a rule of the schema although it was looked at before."""
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    if sqlstate.startswith(("22", "54")):
        return await _unstorable(request, error)
    if isinstance(error, IntegrityError):
        _LOGGER.warning("Refused by the schema: %s", error.orig)
        return _answer(
            status.HTTP_422_UNPROCESSABLE_CONTENT,
            "Something that this depends on was changed at the same time. Look again.",
        )
    if is_outage(error):
        return await _database_away(request, error)
    raise error


async def _unstorable(_: Request, error: StatementError) -> JSONResponse:
    """A value that the database cannot hold, or that cannot be written as its JSON."""
    if not isinstance(error, DBAPIError) and not isinstance(error.orig, JsonError):
        raise error
    told = str(error.orig).rpartition(">: ")[2]
    return _answer(
        status.HTTP_422_UNPROCESSABLE_CONTENT, f"A value cannot be stored or looked up: {told}"
    )


async def _database_away(_: Request, error: Exception) -> JSONResponse:
    away = database_away(error)
    return _answer(away.status_code, away.detail)


def _encodable(part: Any) -> Any:
    """Without halves of surrogate pairs: JSON can hold them, an answer cannot."""
    return part.encode(errors="replace").decode() if isinstance(part, str) else part


def _answer(status_code: int, detail: object) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status_code)
