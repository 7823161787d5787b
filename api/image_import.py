"""How the body of an import is read: in pieces, each checked as it comes.

So it may be longer than memory, and others are served meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from typing import Any

from fastapi import HTTPException, Request, Response, status
from fastapi.routing import APIRoute

from fractal_models.json_text import JsonText, TooLongError
from fractal_models.schemas.dataset import DatasetImport
from fractal_models.spooled_images import SpooledImages

_LONGEST = 1 << 20  # characters of one image, or of a field beside the images
_MOST_PASSED = 16 << 20  # bytes that are read of what cannot be understood any more

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ImportRoute(APIRoute):
    """The route of an endpoint that takes a `DatasetImport`."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def read_in_pieces(request: Request) -> Response:
            with closing(SpooledImages()) as images:
                return await handle(_Import(request, images))

        return read_in_pieces


class _Import(Request):
    """A request of which FastAPI sees the fields that matter, with the images as `images`."""

    def __init__(self, request: Request, images: SpooledImages) -> None:
        super().__init__(request.scope, request.receive)
        self._images = images
        self._value: Any = None

    async def body(self) -> bytes:
        """Read all of it. Only whether there is something is told, which `json` has."""
        chunks = self.stream()
        text = JsonText(chunks, _LONGEST)
        try:
            if not await text.peek():
                return b""
            self._value = await self._read(text)
            await text.end()
        except TooLongError as error:
            told = f"An image, or a field beside them, has more than {_LONGEST:,} characters."
            raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, told) from error
        except (ValueError, RecursionError):
            await _pass_over(chunks)
            raise
        return b"{}"

    async def json(self) -> Any:
        """What was read."""
        return self._value

    async def _read(self, text: JsonText) -> Any:
        if await text.peek() != "{":
            return await text.value()
        fields: dict[str, Any] = {}
        async for name in text.members():
            if name == "images" and await text.peek() == "[":
                fields[name] = await self._read_images(text)
            else:
                value = await text.value()
                if name in DatasetImport.model_fields:
                    fields[name] = value
        return fields

    async def _read_images(self, text: JsonText) -> SpooledImages:
        self._images.clear()  # of a name that occurs twice, the last value counts
        async for some in text.elements():
            self._images.add(some)
            await asyncio.sleep(0)
        return self._images


async def _pass_over(chunks: AsyncIterator[bytes]) -> None:
    """Read what is left: a client that still sends would not hear the answer."""
    passed = 0
    async for chunk in chunks:
        passed += len(chunk)
        if passed > _MOST_PASSED:
            told = "The request is no JSON, and is too long to be read to its end."
            raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, told)
