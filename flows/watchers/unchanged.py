"""Remembers for how long things have been unchanged."""

import time
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Unchanged(Generic[Key]):
    """Remembers how things were found, and since when. By its own clock: those of hosts differ."""

    def __init__(self) -> None:
        self._found: dict[Key, tuple[object, float]] = {}

    def seconds(self, found: Mapping[Key, object]) -> dict[Key, float]:
        """Since when each thing is as it is found now; those not found are forgotten."""
        moment = time.monotonic()
        before = self._found
        self._found = {
            key: before[key] if key in before and before[key][0] == how else (how, moment)
            for key, how in found.items()
        }
        return {key: moment - since for key, (_, since) in self._found.items()}
