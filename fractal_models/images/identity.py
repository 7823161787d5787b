"""When two values of JSON are the same."""

from collections.abc import Hashable
from typing import Any


def identity(value: Any) -> Hashable:
    """Equal for equal values only: `True` is not 1, but 1 is 1.0 (JSON has one kind of number)."""
    if isinstance(value, dict):
        return frozenset((key, identity(item)) for key, item in value.items())
    if isinstance(value, list):
        return tuple(identity(item) for item in value)
    return isinstance(value, bool), value
