"""Which endpoint a path is of: looked up, where Starlette would try one after the other."""

from collections import defaultdict
from typing import Any, NoReturn

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

_FOUND = "fractal.route"


def include(app: FastAPI, routers: list[APIRouter]) -> None:
    """Serve the endpoints of routers; of two that a path fits, the one of the earlier router."""
    index = _Index()
    app.router.routes.append(index)
    for router in routers:
        known = len(app.router.routes)
        app.include_router(router)
        paths = {route.path for route in router.routes if isinstance(route, APIRoute)}
        index.add(paths, app.router.routes[known:])


class _Index(BaseRoute):
    """Comes first, and knows those paths whose parameters are numbers; others are tried in turn."""

    def __init__(self) -> None:
        self._routes: dict[str, list[BaseRoute]] = defaultdict(list)

    def add(self, paths: set[str], routes: list[BaseRoute]) -> None:
        """The routes that serve such paths, after those that were added before."""
        for path in paths:
            self._routes[_shape(path)] += routes

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http":
            for route in self._routes.get(_shape(scope["path"]), ()):
                match, found = route.matches(scope)
                if match is Match.FULL:
                    return match, {**found, _FOUND: route}
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> NoReturn:
        raise NoMatchFound(name, path_params)  # others know

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope[_FOUND].handle(scope, receive, send)


def _shape(path: str) -> str:
    """A path without its numbers or parameters."""
    parts = path.split("/")
    return "/".join("{" if part.isdecimal() or part[:1] == "{" else part for part in parts)
