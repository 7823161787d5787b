"""Ends the work on requests whose client has gone, with the statement that PostgreSQL executes.

Otherwise a few clicks on a slow page keep PostgreSQL busy for all. Only what reads is ended. What
changes something comes to its end, as clients that gave up look later what became of it.
"""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.request_body import Endpoint, has_body

_SHORT_SECONDS = 0.05  # most requests take less, and to watch each would cost a task


def only_reads(endpoint: Endpoint) -> Endpoint:
    """Say that an endpoint changes nothing, although it is asked by POST."""
    endpoint.__dict__["only_reads"] = True
    return endpoint


def changes_something(endpoint: Endpoint) -> Endpoint:
    """Say that an endpoint does not only read, although it is asked by GET."""
    endpoint.__dict__["only_reads"] = False
    return endpoint


def reads_only(scope: Scope) -> bool:
    """Whether a request changes nothing, as its endpoint says, or else its method."""
    by_method = scope["method"] in ("GET", "HEAD")
    marked: bool = getattr(scope.get("endpoint"), "only_reads", by_method)
    return marked


class GoneClients:
    """Cancels the work on a request that only reads when its client closes the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        working = asyncio.current_task()
        if scope["type"] != "http" or working is None:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, working)
        if not has_body(scope):
            await exchange.take_empty_body()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.is_abandoned:
                raise
            working.uncancel()
        finally:
            exchange.end()


class _Exchange:
    """One request and its answer, on which a task works."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, working: asyncio.Task[Any]
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._working = working
        self._empty_body: Message | None = None
        self._is_read, self._is_gone = asyncio.Event(), asyncio.Event()
        self._is_answered = False
        self.is_abandoned = False
        self._watching: asyncio.TimerHandle | asyncio.Task[None]
        self._watching = asyncio.get_running_loop().call_later(_SHORT_SECONDS, self._begin_watch)

    async def take_empty_body(self) -> None:
        """Take what comes in place of a body, for which an endpoint may not ask."""
        self._empty_body = await self._next()

    async def receive(self) -> Message:
        """The next part of the body; after the last one, waits until the client has gone."""
        if self._empty_body is not None:
            message, self._empty_body = self._empty_body, None
            return message
        if self._is_read.is_set():
            await self._is_gone.wait()
            return {"type": "http.disconnect"}
        return await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._is_read.set()
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_answered = True
        await self._send(message)

    def end(self) -> None:
        """The request has been dealt with."""
        self._watching.cancel()

    def _begin_watch(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Cancel the work if the client goes before it is answered."""
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone.set()
        if reads_only(self._scope) and not self._is_answered:
            self.is_abandoned = True
            self._working.cancel()
