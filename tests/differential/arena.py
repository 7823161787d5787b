"""Both servers, with the people who ask."""

from dataclasses import dataclass
from typing import Any

from benchmarks.reference import ADMIN, PASSWORD, Reference
from deployments.stack import Stack
from tests.differential.servers import DIRECTORY, Id, Pair, Request
from tests.differential.world import World


@dataclass(frozen=True)
class Arena:
    pair: Pair
    world: World
    document: dict[str, Any]  # the contract, as the reference tells it


def arena(stack: Stack, password: str, reference: Reference, prefix: str) -> Arena:
    """Log administrators in (of ours with this password), and make "owner" and "stranger"."""
    pair = Pair(stack.api_url, reference.api_url)
    credentials = [(stack.initialised.admin_email, password), (ADMIN, PASSWORD)]
    pair.log_in("admin", credentials)
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
    document = pair.reference.http.get("/openapi.json").json()
    return Arena(pair, world, document)
