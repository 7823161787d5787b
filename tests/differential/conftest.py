"""Both servers, for short comparisons with a seed that is always the same."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.differential.arena import Arena, running_arena
from tests.differential.reference import NoReferenceError

SEED = 1


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    print(f"seed {SEED}")
    with ExitStack() as servers:
        try:
            arena = servers.enter_context(running_arena(str(SEED)))
        except NoReferenceError as error:
            pytest.skip(f"There is nothing to compare with: {error}")
        yield arena
