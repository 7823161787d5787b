"""How long each request took is noted."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.monitoring.request_times import RequestTimes


class MeasuredRequests:
    """Measures each request to its last byte."""

    def __init__(self, app: ASGIApp, times: RequestTimes) -> None:
        self._app = app
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, answered = time.perf_counter(), "none", 0.0

        async def note(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)
            answered = time.perf_counter()

        try:
            await self._app(scope, receive, note)  # with what is done when it is answered
        finally:
            path = getattr(scope.get("route"), "path", "none")
            seconds = (answered or time.perf_counter()) - began
            self._times.took(_method(scope), path, status, seconds)


def _method(scope: Scope) -> str:
    """The method, unless it was made up: each has a counter, and there are to be few."""
    known = ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"
