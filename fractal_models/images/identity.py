"""When two JSON values are the same."""

from collections.abc import Hashable
from typing import Any


def identity(value: Any) -> Hashable:
    """A key that is equal only for equal values: `True` is not 1, but 1 is 1.0, as in JSON."""
    if isinstance(value, dict):
        return frozenset((key, identity(item)) for key, item in value.items())
    if isinstance(value, list):
        return tuple(identity(item) for item in value)
    return isinstance(value, bool), value
