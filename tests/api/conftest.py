"""The OpenAPI document of the API."""

from typing import Any

import pytest

from tests.api.document import document


@pytest.fixture(scope="session")
def ours() -> dict[str, Any]:
    return document()
