"""The operations of the contract, as the reference describes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    parameters: list[str]  # in the path
    query: dict[str, Any]  # schemas
    content_type: str | None  # of the body

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                described = methods[method]
                parameters = described.get("parameters", [])
                content = described.get("requestBody", {}).get("content", {})
                yield Operation(
                    method.upper(),
                    path,
                    [each["name"] for each in parameters if each["in"] == "path"],
                    {each["name"]: each["schema"] for each in parameters if each["in"] == "query"},
                    next(iter(content), None),
                )
