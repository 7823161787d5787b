"""The OpenAPI document of the API, which takes a second to be made."""

from functools import cache
from typing import Any

from api.app import create_app
from fractal_models.settings import Settings


@cache
def document() -> dict[str, Any]:
    """It needs neither database nor Prefect. Nobody changes it."""
    settings = Settings(
        database_url="postgresql://nobody@localhost/nothing",
        prefect_api_url="http://127.0.0.1:9/api",
        jwt_secret="a secret of the tests, which is long enough",
    )
    return create_app(settings).openapi()
