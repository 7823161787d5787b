"""How the REST API is served: with limits for the number of connections and for their silence."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# Further connections get status 503. A process may usually have 1024 open files.
MAX_CONNECTIONS = 800
HEAD_SECONDS = 30.0


class BoundedProtocol(H11Protocol):
    """Closes a connection if receiving the head of a request takes longer than `HEAD_SECONDS`.

    uvicorn itself limits only how long a connection is silent after an answer; its parser, h11,
    limits the length of a head.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_served():
            self._end_wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_served():
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_wait()
        super().connection_lost(exc)

    def _is_served(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._end_wait()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self._is_served():
            self.transport.close()

    def _end_wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


# Options of uvicorn. The API has no websockets. It starts programs with a umask and as other users,
# which uvloop cannot.
OPTIONS: dict[str, Any] = {
    "http": BoundedProtocol,
    "loop": "asyncio",
    "ws": "none",
    "limit_concurrency": MAX_CONNECTIONS,
}
