"""Answers that are too long for memory: JSON in a temporary file, sent when all of it is there.

So what has begun to be sent is whole, and a slow download holds no connection to the database.
"""

import asyncio
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile

from fastapi import Response
from starlette.types import Receive, Scope, Send

_IN_MEMORY, _CHUNK = 1 << 20, 1 << 18  # bytes


class LongJsonDocument(Response):
    """A JSON object, of which one member is a long array."""

    media_type = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115

    async def write(self, head: str, name: str, arrays: AsyncIterator[str]) -> None:
        """Write the object `head` with a further member: all these arrays as one."""
        self._file.write(f'{head[:-1]}, "{name}": ['.encode())
        comma = b""
        async for array in arrays:
            self._file.write(comma + array[1:-1].encode())
            comma = b","
        self._file.write(b"]}")
        self.headers["content-length"] = str(self._file.tell())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, with others served in between, and delete it."""
        start = {"type": "http.response.start", "status": self.status_code}
        with self._file as file:
            file.seek(0)
            await send({**start, "headers": self.raw_headers})
            while chunk := file.read(_CHUNK):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await asyncio.sleep(0)
            await send({"type": "http.response.body"})
