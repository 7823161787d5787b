"""How the REST API is served: by one process or several, with limits for connections."""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import threading
from functools import partial
from typing import Any

import uvicorn
import uvicorn._subprocess
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from deployments.plain_logging import log_without_colours
from fractal_models.settings import Settings

# Further connections of a process get status 503. It may usually have 1024 open files.
MAX_CONNECTIONS = 800
HEAD_SECONDS = 30.0
_HEAD_BYTES = 16 << 10
_LARGE_BYTES = 64 << 10  # more is not copied
_STUCK_SECONDS = 60  # a process that shows no sign of life for so long is replaced


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection if a head is too long, or takes longer than `HEAD_SECONDS`.

    uvicorn itself limits only how long a connection is silent after an answer; its parser takes
    any number of bytes of a head, and of what is in a body beside its content.
    """

    _deadline: asyncio.TimerHandle | None = None
    _held_back = 0  # bytes of which nothing has come of yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._answers = _Answers(transport, self.loop)
        super().connection_made(self._answers)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        self._held_back += len(data)
        super().data_received(data)
        if self._held_back > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")
        if self._is_served():
            self._end_wait()

    def on_headers_complete(self) -> None:
        """Begin to serve a request.

        Raises:
            ValueError: it does not name one host, which is answered with status 400.
        """
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("A request names one host.")
        super().on_headers_complete()
        self._held_back = 0
        self.headers = []  # for what follows a body, which is not looked at

    def on_body(self, body: bytes) -> None:
        self._held_back = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._held_back = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._answers.flush()
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


class _Answers(asyncio.Transport):
    """Sends the head of an answer with its body, so that a client wakes once.

    uvicorn writes them one after the other. What is written in a turn of the event loop is joined.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        if len(data) > _LARGE_BYTES:
            self.flush()
            self._transport.write(data)
            return
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)

    def flush(self) -> None:
        """Send what was written."""
        if self._pieces:
            self._transport.write(b"".join(self._pieces))
            self._pieces.clear()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


# Options of uvicorn. The API has no websockets. It starts programs with a umask and as other users,
# which uvloop cannot.
OPTIONS: dict[str, Any] = {
    "http": BoundedProtocol,
    "loop": "asyncio",
    "ws": "none",
    "limit_concurrency": MAX_CONNECTIONS,
}


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Of several processes, those that end are replaced."""
    from flows.monitoring.request_times import shared_by_processes

    with shared_by_processes():
        _serve(settings, _app(settings))


def _serve(settings: Settings, app: FastAPI) -> None:
    where: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,  # Prefect's logging, so that all lines look the same
        "log_level": "info",
    }
    if settings.api_workers == 1:
        uvicorn.run(app, **where, **OPTIONS)
        return
    config = uvicorn.Config(
        partial(_in_one_process, app),
        **where,
        factory=True,
        workers=settings.api_workers,
        timeout_worker_healthcheck=_STUCK_SECONDS,
        **OPTIONS,
    )
    _have_processes_forked()
    Multiprocess(config, sockets=[config.bind_socket()]).run()


def _have_processes_forked() -> None:
    """Have uvicorn fork its processes from this one, which has the application already.

    uvicorn starts new interpreters: each would import for seconds, and share no memory.
    """
    vars(uvicorn._subprocess)["spawn"] = multiprocessing.get_context("fork")
    # Until a process serves, signals end it. uvicorn would only note them, as in this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        os.register_at_fork(after_in_child=partial(signal.signal, number, signal.SIG_DFL))


def _in_one_process(app: FastAPI) -> FastAPI:
    """The application, in one of several processes, which ends with the one that began it."""
    if (parent := multiprocessing.parent_process()) is not None:
        multiprocessing.current_process().name = parent.name
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return app


def _app(settings: Settings) -> FastAPI:
    from api.app import create_app  # takes seconds

    app = create_app(settings)
    for name in ("uvicorn.error", "uvicorn.access"):  # Prefect has just set it otherwise
        logging.getLogger(name).setLevel(logging.INFO)
    log_without_colours(logging.getLogger("uvicorn"))
    gc.collect()
    # Nobody would be served while all that stays is looked through now and then.
    gc.freeze()
    return app


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
