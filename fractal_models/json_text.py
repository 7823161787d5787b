"""JSON that is parsed as it arrives, by Python's own decoder, value by value.

What comes out, and what is told of a text that is no JSON, is as if it were parsed in one go:
integers of any size stay what they are, and errors name their place in the whole text.
"""

import asyncio
import codecs
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from fractal_models.errors import FractalError

_CHUNK = 64 << 10  # bytes that are taken at once, so that a value is seldom begun in vain
_ELEMENTS = 100  # that are parsed at once, in a millisecond
_LONGEST_WORD = len("-Infinity") + 1
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class TooLongError(FractalError):
    """One value is longer than it may be."""


class JsonText:
    """A text of which no more is kept than the value that is being read.

    What is no JSON raises `json.JSONDecodeError`, and a value of more than `longest` characters,
    but for some, `TooLongError`.
    """

    def __init__(self, chunks: AsyncIterator[bytes], longest: int) -> None:
        self._chunks = chunks
        self._longest = longest
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text, self._at = "", 0
        self._forgotten = 0  # characters before the text
        self._has_ended = False

    async def peek(self) -> str:
        """The next character that is no space; none at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text) or not await self._read_on():
                return self._text[self._at : self._at + 1]

    async def value(self) -> Any:
        """The next value."""
        await self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated string") or self._is_cut(error.pos)
                if not (may_go_on and await self._read_on()):
                    raise self._error(error.msg, error.pos) from None
            else:
                if not (self._is_cut(end) and await self._read_on()):
                    self._at = end
                    return value

    async def members(self) -> AsyncIterator[str]:
        """The names in an object. The value of each is to be read before the next one."""
        async for _ in self._parts("}"):
            if await self.peek() != '"':
                raise self._error("Expecting property name enclosed in double quotes", self._at)
            name = await self.value()
            if await self.peek() != ":":
                raise self._error("Expecting ':' delimiter", self._at)
            self._at += 1
            yield name

    async def elements(self) -> AsyncIterator[list[Any]]:
        """The elements of an array, some at a time."""
        some: list[Any] = []
        async for _ in self._parts("]"):
            some.append(await self.value())
            if len(some) == _ELEMENTS:
                yield some
                some = []
        yield some

    async def end(self) -> None:
        """See that nothing follows."""
        if await self.peek():
            raise self._error("Extra data", self._at)

    def _is_cut(self, at: int) -> bool:
        """Whether it may be that a number, word or escape goes on which ends here."""
        return at > len(self._text) - _LONGEST_WORD

    async def _parts(self, end: str) -> AsyncIterator[None]:
        """Come to each part of an array or object, and at last behind its end."""
        self._at += 1
        if await self.peek() == end:
            self._at += 1
            return
        mark = ","
        while mark == ",":
            yield
            mark = await self.peek()
            if mark not in (",", end):
                raise self._error("Expecting ',' delimiter", self._at)
            self._at += 1

    async def _read_on(self) -> bool:
        """Have more of the text, if there is more; forget what was read."""
        if self._has_ended:
            return False
        if len(self._text) - self._at > self._longest:
            raise TooLongError(f"A value has more than {self._longest:,} characters.")
        await asyncio.sleep(0)  # others are served now
        chunk = bytearray()
        async for piece in self._chunks:
            chunk += piece
            if len(chunk) >= _CHUNK:
                break
        else:
            self._has_ended = True
        if self._decoder is None:
            encoding = json.detect_encoding(chunk)
            self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._forgotten += self._at
        self._text = self._text[self._at :] + self._decoder.decode(chunk, self._has_ended)
        self._at = 0
        return True

    def _error(self, told: str, at: int) -> json.JSONDecodeError:
        error = json.JSONDecodeError(told, "", 0)
        error.pos = self._forgotten + at
        return error
