"""Both servers, for short comparisons with a seed that is always the same."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reference import NoReferenceError, Reference, running_reference
from deployments.stack import Stack
from tests.differential.arena import Arena, arena

SEED = 1


@pytest.fixture(scope="session")
def reference(stack: Stack) -> Iterator[Reference]:
    """`fractal-server` on the PostgreSQL server of the stack."""
    with tempfile.TemporaryDirectory(
        prefix="fractal-reference-", ignore_cleanup_errors=True
    ) as folder:
        try:
            running = running_reference(stack.postgres.fractal, Path(folder, "reference"))
            server = running.__enter__()
        except NoReferenceError as error:
            pytest.skip(f"There is nothing to compare with: {error}")
        yield server
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def servers(stack: Stack, reference: Reference) -> Arena:
    print(f"seed {SEED}")
    return arena(stack, "of the tests", reference, str(SEED))
