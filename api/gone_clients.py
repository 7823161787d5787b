"""Ends the work on requests whose client has gone, with the statement that PostgreSQL executes.

Otherwise a few clicks on a slow page keep PostgreSQL busy for all. Only what reads is ended. What
changes something comes to its end, as clients that gave up look later what became of it.
"""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.request_body import Endpoint, has_body


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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        if not has_body(scope):
            await exchange.take_empty_body()
        working = asyncio.ensure_future(self._app(scope, exchange.receive, exchange.send))
        watching = asyncio.create_task(exchange.watch(scope, working))
        try:
            await working
        except asyncio.CancelledError:
            if not exchange.is_abandoned:
                raise
        finally:
            watching.cancel()
            if working.cancel():  # the server ends
                with suppress(asyncio.CancelledError):
                    await working


class _Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._empty_body: Message | None = None
        self._is_read, self._is_gone = asyncio.Event(), asyncio.Event()
        self._is_answered = False
        self.is_abandoned = False

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

    async def watch(self, scope: Scope, working: "asyncio.Future[None]") -> None:
        """Cancel the work if the client goes before it is answered."""
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone.set()
        if reads_only(scope) and not self._is_answered:
            self.is_abandoned = True
            working.cancel()
