"""Remembers for how long things have been unchanged."""

import time
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Unchanged(Generic[Key]):
    """Remembers the last value of each thing, and for how long it has been the same.

    It measures by its own clock, because the clocks of hosts differ.
    """

    def __init__(self) -> None:
        self._found: dict[Key, tuple[object, float]] = {}

    def seconds(self, found: Mapping[Key, object]) -> dict[Key, float]:
        """The seconds for which each thing has had its value. Things not given are forgotten."""
        moment = time.monotonic()
        before = self._found
        self._found = {
            key: before[key] if key in before and before[key][0] == how else (how, moment)
            for key, how in found.items()
        }
        return {key: moment - since for key, (_, since) in self._found.items()}
