"""The OpenAPI document of the API, and the tests of which each asks for one of its operations."""

from pathlib import Path
from typing import Any

import pytest

from tests.api.document import document

OF_EACH_OPERATION = {"test_nasty_values.py", "test_schemathesis.py"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out those where no test of them is wanted: the document takes seconds to be made."""
    is_unit = config.option.markexpr == "unit"
    return True if is_unit and collection_path.name in OF_EACH_OPERATION else None


@pytest.fixture(scope="session")
def ours() -> dict[str, Any]:
    return document()
