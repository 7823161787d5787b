"""What is read of a request's body: nothing before it is known who asks, and no more than fits.

FastAPI reads and parses a body before it looks at who sent it. So a body is closed here until its
sender is found to be logged in, and then open as far as its endpoint takes it: that is JSON of
`FRACTAL_MAX_JSON_MB`, unless the endpoint says otherwise by `takes`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from fastapi import HTTPException, Request, status
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import active_user, token_of
from api.errors import database_away, not_logged_in
from fractal_models.database import is_outage, is_too_slow
from fractal_models.settings import Settings

_MIB, _KIB = 1 << 20, 1 << 10
_LOGIN_BYTES, _URLENCODED_BYTES = 8 * _KIB, 64 * _KIB
# A hundred thousand values, and what is told of them, take up to half a second, in which nothing
# else is served. Bodies have some thousand, unless they are read in pieces.
_JSON_VALUES = 100_000
_SILENT_SECONDS = 60.0

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Body(Enum):
    """What an endpoint takes."""

    LOGIN = "the form of a login, from anybody"
    JSON = "JSON"
    IMAGES = "JSON with a list of images, which is read in pieces"
    FILE = "a form with a file"


def takes(body: Body) -> Callable[[Endpoint], Endpoint]:
    """Say what an endpoint takes, if that is not JSON."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["takes"] = body
        return endpoint

    return mark


@dataclass(frozen=True, slots=True)
class Limit:
    """How much is read of a body; its values are counted by commas and opening brackets."""

    bytes: int
    values: float
    setting: str | None = None

    def too_many_bytes(self) -> HTTPException:
        mend = f", or have an administrator raise {self.setting}" if self.setting else ""
        size = f"{self.bytes // _MIB} MiB" if self.bytes >= _MIB else f"{self.bytes // _KIB} KiB"
        return _too_large(f"The request has more than {size}: send less{mend}.")

    def too_many_values(self) -> HTTPException:
        return _too_large(f"The request has more than {self.values} values: send less.")


def limit_of(body: Body, content_type: str, settings: Settings) -> Limit:
    """How much is read of a body of this content type, at an endpoint that takes such a one."""
    if body is Body.LOGIN:
        return Limit(_LOGIN_BYTES, _LOGIN_BYTES)
    if content_type.startswith("application/x-www-form-urlencoded"):
        return Limit(_URLENCODED_BYTES, _URLENCODED_BYTES)
    if body is Body.JSON:
        return Limit(settings.max_json_mb * _MIB, _JSON_VALUES, "FRACTAL_MAX_JSON_MB")
    if body is Body.IMAGES:
        return Limit(settings.max_import_mb * _MIB, float("inf"), "FRACTAL_MAX_IMPORT_MB")
    return Limit(settings.max_upload_mb * _MIB, float("inf"), "FRACTAL_MAX_UPLOAD_MB")


class RequestBodies:
    """Answers 401, 408 or 413 where a body is not to be read, or not to its end."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and has_body(scope):
            receive = _GuardedBody(scope, receive, self._settings).receive
        await self._app(scope, receive, send)


class _GuardedBody:
    """The body of one request. When it is first asked for, the endpoint is known."""

    def __init__(self, scope: Scope, receive: Receive, settings: Settings) -> None:
        self._scope = scope
        self._receive = receive
        self._settings = settings
        self._limit: Limit | None = None
        self._is_read = False
        self._bytes = self._values = 0

    async def receive(self) -> Message:
        if self._is_read:
            return await self._receive()  # that the client has gone
        limit = self._limit = self._limit or await self._open()
        try:
            async with asyncio.timeout(_SILENT_SECONDS):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(
                status.HTTP_408_REQUEST_TIMEOUT,
                f"Nothing more of the request came for {_SILENT_SECONDS:.0f} s: send it again.",
            ) from error
        chunk = message.get("body", b"")
        self._is_read = not message.get("more_body", False)
        self._bytes += len(chunk)
        if self._bytes > limit.bytes:
            raise limit.too_many_bytes()
        self._values += sum(map(chunk.count, (b",", b"[", b"{")))
        if self._values > limit.values:
            raise limit.too_many_values()
        return message

    async def _open(self) -> Limit:
        headers = Headers(scope=self._scope)
        body = getattr(self._scope.get("endpoint"), "takes", Body.JSON)
        if body is not Body.LOGIN:
            await _require_login(Request(self._scope), self._settings)
        limit = limit_of(body, headers.get("content-type", "").lower(), self._settings)
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit.bytes:
            raise limit.too_many_bytes()
        return limit


def has_body(scope: Scope) -> bool:
    """Whether the head of a request announces a body."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _require_login(request: Request, settings: Settings) -> None:
    """The connection to the database is free again before the body is read."""
    token = await token_of(request)
    try:
        async with request.app.state.services.sessions() as session:
            user = await active_user(token, session, settings)
    except Exception as error:
        if is_outage(error) or is_too_slow(error):
            raise database_away(error) from error
        raise
    if user is None:
        raise not_logged_in()


def _too_large(detail: str) -> HTTPException:
    return HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, detail)
