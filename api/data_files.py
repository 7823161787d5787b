"""Answers with a file of image data: whole or one range of it, or that it has not changed.

As RFC 9110 says it, for GET and HEAD; of several ranges at once, all of the file is sent.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import BinaryIO

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.status import (
    HTTP_200_OK,
    HTTP_206_PARTIAL_CONTENT,
    HTTP_304_NOT_MODIFIED,
    HTTP_416_RANGE_NOT_SATISFIABLE,
)

from flows.viewing.files import DataFile, open_data

_AT_ONCE, _PORTION = 4 << 20, 1 << 20  # bytes
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_JSON = (".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
# Users wrote the files: a browser must not take one for a page of this site.
_HARMLESS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cache-control": "private, no-cache",
    "accept-ranges": "bytes",
}


async def answer_with(
    path: str, folder: str, headers: Mapping[str, str], *, head: bool = False
) -> Response:
    """The answer to a request for a file below a folder; with `head`, without the content.

    Raises NotFoundError, as `open_data`.
    """
    return await asyncio.to_thread(_answer, path, folder, headers, head)


def _answer(path: str, folder: str, headers: Mapping[str, str], head: bool) -> Response:
    data = open_data(path, folder)
    tag = f'"{data.tag}"'
    told = {**_HARMLESS, "etag": tag}
    with suppress(ValueError, OverflowError, OSError):  # its owner can set any time
        told["last-modified"] = formatdate(data.modified, usegmt=True)
    if _names(headers.get("if-none-match"), tag):
        data.file.close()
        return Response(status_code=HTTP_304_NOT_MODIFIED, headers=told)
    begin, end = 0, data.size
    status = HTTP_200_OK
    if "range" in headers and headers.get("if-range", tag) == tag:
        wanted = _RANGE.fullmatch(headers["range"].strip())
        if wanted is not None and (part := _part(wanted[1], wanted[2], data.size)) is not None:
            begin, end = part
            if begin >= end:
                data.file.close()
                told["content-range"] = f"bytes */{data.size}"
                return Response(status_code=HTTP_416_RANGE_NOT_SATISFIABLE, headers=told)
            told["content-range"] = f"bytes {begin}-{end - 1}/{data.size}"
            status = HTTP_206_PARTIAL_CONTENT
    kind = "application/json" if path.endswith(_JSON) else "application/octet-stream"
    if head:
        data.file.close()
        told["content-length"] = str(end - begin)
        return Response(None, status, told, kind)
    return _content(data, begin, end - begin, status, told, kind)


def _content(
    data: DataFile, begin: int, length: int, status: int, told: dict[str, str], kind: str
) -> Response:
    data.file.seek(begin)
    if length <= _AT_ONCE:
        with data.file:
            return Response(data.file.read(length), status, told, kind)
    told["content-length"] = str(length)
    return StreamingResponse(_portions(data.file, length), status, told, kind)


def _names(tags: str | None, tag: str) -> bool:
    """Whether If-None-Match names this tag, or any."""
    named = [each.strip().removeprefix("W/") for each in (tags or "").split(",")]
    return tag in named or named == ["*"]


def _part(first: str, last: str, size: int) -> tuple[int, int] | None:
    """The begin and end of a range: `first-last`, `first-`, or `-last`, the last so many bytes.

    None if it is no range.
    """
    if not first:
        return (max(size - int(last), 0), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


async def _portions(file: BinaryIO, length: int) -> AsyncIterator[bytes]:
    with file:
        while length > 0 and (portion := await asyncio.to_thread(file.read, min(length, _PORTION))):
            length -= len(portion)
            yield portion
