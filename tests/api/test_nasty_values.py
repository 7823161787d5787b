"""Values that no client sends by mistake: each is refused, none breaks a request."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from tests.api.document import document

BEYOND_BIGINT = str(2**70)
TEXTS = ["%00", "abc", "-1", BEYOND_BIGINT, "%ED%A0%80", "x" * 5000, "1e999", "%FF"]
BODIES = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"[null]",
    b'"text"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
    b'{"id": NaN, "name": Infinity}',
]


OPERATIONS = [
    (method, path, operation)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
]
NAMES = [f"{method} {path}" for method, path, _ in OPERATIONS]


def in_fields(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Bodies whose fields all have the same nasty value."""
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    fields = document()["components"]["schemas"].get(name, {}).get("properties", {})
    for value in ("\0", "\ud800", 2**70, -(2**70), 1e308, [], {}, {"\0": "\0"}, "../../../etc"):
        if fields:
            yield dict.fromkeys(fields, value)


async def answers(app: FastAPI, admin: Any, method: str, path: str, operation: Any) -> Any:
    """The statuses, by what was sent."""
    parameters = {place: [] for place in ("path", "query", "cookie", "header")}
    for parameter in operation.get("parameters", []):
        parameters[parameter["in"]].append(parameter["name"])
    plain = path.format(**dict.fromkeys(parameters["path"], 1))
    found = {}
    for text in TEXTS:
        url = path.format(**dict.fromkeys(parameters["path"], text))
        found[url] = (await admin.request(method, url)).status_code
        for name in parameters["query"]:
            url = f"{plain}?{name}={text}"
            found[url] = (await admin.request(method, url)).status_code
    if "requestBody" in operation:
        for kind in ("application/json", "text/plain", "multipart/form-data"):
            for body in BODIES:
                headers = {"Content-Type": kind}
                answer = await admin.request(method, plain, content=body, headers=headers)
                found[kind, body[:20], len(body)] = answer.status_code
        for fields in in_fields(operation):
            encoded = json.dumps(fields).encode()
            headers = {"Content-Type": "application/json"}
            answer = await admin.request(method, plain, content=encoded, headers=headers)
            found[encoded[:60]] = answer.status_code
    return found


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
async def test_nasty_values_are_refused(
    method: str, path: str, operation: dict[str, Any], app: FastAPI, admin: Any
) -> None:
    found = await answers(app, admin, method, path, operation)

    broken = {sent: status for sent, status in found.items() if status >= 500 and status != 503}
    assert broken == {}
    if "{" in path or "requestBody" in operation:
        assert {404, 422} & set(found.values())
