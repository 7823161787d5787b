"""Endpoints are looked up, and it is the same ones that would be found by trying all in turn."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Match

from api.app import create_app
from fractal_models.settings import Settings


@pytest.fixture(scope="module")
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


def asked(app: FastAPI, method: str, path: str) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "root_path": "", "app": app}


def first(routes: list[BaseRoute], scope: dict[str, Any]) -> tuple[BaseRoute, dict[str, Any]]:
    """The first route that serves a request, and what it says of it."""
    for route in routes:
        match, found = route.matches(scope)
        if match is Match.FULL:
            return route, found
    raise AssertionError(f"Nothing serves {scope['path']}.")


def test_each_path_finds_the_endpoint_that_comes_first(app: FastAPI) -> None:
    index, *others = app.router.routes[4:]  # after those of the OpenAPI document
    asks = [
        (method.upper(), re.sub(r"{\w+}", "7", path))
        for path, item in app.openapi()["paths"].items()
        for method in item
    ]
    assert len(asks) > 100
    for method, path in asks:
        scope = asked(app, method, path)
        match, found = index.matches(scope)
        assert match is Match.FULL
        assert first(others, scope)[0] in found.values()


@pytest.mark.parametrize("path", ["/api/v2/project/invitation/", "/auth/github/authorize/"])
def test_paths_with_words_for_parameters_are_found(app: FastAPI, path: str) -> None:
    first(app.router.routes, asked(app, "GET", path))
