"""What an OpenAPI document says of requests and answers, as facts that can be compared.

A fact is a line such as `name is string`, `name is required` or `images[].origin is null`. Two
documents differ where one has a fact that the other has not.
"""

from collections.abc import Iterator
from typing import Any

METHODS = ("get", "post", "put", "patch", "delete")
_LIMITS = (
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "format",
)

Document = dict[str, Any]


def shapes(document: Document) -> dict[str, set[str]]:
    """The facts of each operation, by its method and path (the names in it do not matter)."""
    return {
        f"{method.upper()} {_nameless(path)}": set(_facts_of(document, item[method]))
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def _nameless(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def _facts_of(document: Document, operation: Document) -> Iterator[str]:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            continue
        name = f"{parameter['in']} {parameter['name']}"
        if parameter.get("required"):
            yield f"{name} is required"
        yield from _facts(document, parameter["schema"], name)
    body = operation.get("requestBody", {})
    if body.get("required"):
        yield "body is required"
    for kind, content in body.get("content", {}).items():
        yield f"body is {kind}"
        yield from _facts(document, content.get("schema", {}), "body")
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            for content in answer.get("content", {}).values():
                yield from _facts(document, content.get("schema", {}), "answer")


def _facts(
    document: Document, schema: Document, at: str, within: tuple[str, ...] = ()
) -> Iterator[str]:
    """The facts of a schema; recursive ones are followed once."""
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in within:
            return
        within = (*within, name)
        schema = document["components"]["schemas"][name]
    for union in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(union, []):
            yield from _facts(document, option, at, within)
    if "type" in schema:
        yield f"{at} is {schema['type']}"
    if schema.get("default"):
        yield f"{at} is {schema['default']!r} by default"
    for value in schema.get("enum", [schema["const"]] if "const" in schema else []):
        yield f"{at} can be {value!r}"
    for limit in _LIMITS:
        if limit in schema:
            yield f"{at} has {limit} {schema[limit]}"
    for name, each in schema.get("properties", {}).items():
        yield from _facts(document, each, f"{at}.{name}", within)
    for name in schema.get("required", []):
        yield f"{at}.{name} is required"
    items = [schema["items"]] if "items" in schema else schema.get("prefixItems", [])
    for each in items:
        yield from _facts(document, each, f"{at}[]", within)
    others = schema.get("additionalProperties", True)
    if others is False:
        yield f"{at} has no other fields"
    elif isinstance(others, dict):
        yield from _facts(document, others, f"{at}.*", within)
