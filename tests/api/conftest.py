"""The OpenAPI document of the API."""

from typing import Any

import pytest

from api.app import create_app
from fractal_models.settings import Settings


@pytest.fixture(scope="session")
def ours() -> dict[str, Any]:
    """The OpenAPI document; it needs neither database nor Prefect."""
    settings = Settings(
        database_url="postgresql://nobody@localhost/nothing",
        prefect_api_url="http://127.0.0.1:9/api",
        jwt_secret="a secret of the tests, which is long enough",
    )
    return create_app(settings).openapi()
