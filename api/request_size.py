"""Requests are no larger than the server wants to hold."""

from fastapi import HTTPException, status
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestSizeLimit:
    """Answers 413 to a request with more than so many MiB, of which no more is read."""

    def __init__(self, app: ASGIApp, max_mb: int) -> None:
        self._app = app
        self._max_bytes = max_mb << 20
        self._detail = (
            f"The request has more than {max_mb} MiB: send less, or have an administrator raise "
            "FRACTAL_MAX_UPLOAD_MB."
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            answer = JSONResponse({"detail": self._detail}, status.HTTP_413_CONTENT_TOO_LARGE)
            await answer(scope, receive, send)
            return
        left = self._max_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, self._detail)
            return message

        await self._app(scope, counted, send)
