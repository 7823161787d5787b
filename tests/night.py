"""The seed of a night, on which random examples are many and new; by day they are few."""

import os

from hypothesis import settings

SEED = int(os.environ["NIGHT_SEED"]) if "NIGHT_SEED" in os.environ else None

if SEED is not None:
    settings.register_profile("night", max_examples=2000, print_blob=True)
    settings.load_profile("night")


def examples(by_day: int, at_night: int) -> int:
    """For tests of which the default number takes too long."""
    return by_day if SEED is None else at_night
