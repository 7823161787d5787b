"""Both servers, with the people who ask."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.stack import Stack, StackOptions, running_stack
from tests.differential.reference import ADMIN, PASSWORD, installed_reference, running_reference
from tests.differential.servers import DIRECTORY, Id, Pair, Request
from tests.differential.world import World


@dataclass(frozen=True)
class Arena:
    pair: Pair
    world: World
    document: dict[str, Any]  # the contract, as the reference tells it


@contextmanager
def running_arena(prefix: str) -> Iterator[Arena]:
    """Both servers, new ones: random requests may change all that there is.

    Raises:
        NoReferenceError: the reference cannot be installed or started.
    """
    installed_reference()
    with tempfile.TemporaryDirectory(
        prefix="fractal-differential-",
        ignore_cleanup_errors=True,  # units of the last jobs may still write
    ) as folder:
        options = StackOptions(
            data_dir=Path(folder), port=0, prefect_port=0, admin_password=PASSWORD
        )
        with (
            running_stack(options) as stack,
            running_reference(stack.postgres.fractal, Path(folder, "reference")) as reference,
        ):
            pair = Pair(stack.api_url, reference.api_url)
            yield Arena(pair, _people(pair, stack, prefix), _contract(pair))


def _people(pair: Pair, stack: Stack, prefix: str) -> World:
    """Log the administrators in, and make "owner" and "stranger"."""
    pair.log_in("admin", [(stack.initialised.admin_email, PASSWORD), (ADMIN, PASSWORD)])
    pair.make(Request("admin", "GET", "/auth/current-user/"), "default admin")
    path, parameters = "/auth/users/{user_id}/", {"user_id": Id("default admin")}
    pair.make(Request("admin", "PATCH", path, parameters, body={"project_dirs": [DIRECTORY]}))
    for server, groups in zip(
        pair.servers, pair.make(Request("admin", "GET", "/auth/group/")), strict=True
    ):
        (server.ids["default group"],) = (each["id"] for each in groups if each["name"] == "All")
    world = World(pair, f"request {prefix}")
    for person in ("owner", "stranger"):
        world.admit(person)
    return world


def _contract(pair: Pair) -> dict[str, Any]:
    document: dict[str, Any] = pair.reference.http.get("/openapi.json").json()
    return document
