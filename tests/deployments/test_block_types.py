"""The block types of Prefect: an embedded stack offers those that a server of its own registers."""

from pathlib import Path

import prefect
from prefect.client.orchestration import PrefectClient

from deployments.stack import Stack
from tests.lab import eventually


async def test_people_find_the_block_types_of_prefect(stack: Stack, prefect: PrefectClient) -> None:
    async def read() -> set[str]:
        return {each.slug for each in await prefect.read_block_types()}

    # Of the server itself, of what a client knows, and of the collections.
    expected = {"secret", "slack-webhook", "aws-credentials"}
    await eventually(read, lambda found: found >= expected)


async def test_they_are_registered_once_for_a_version_of_prefect(stack: Stack) -> None:
    marker = Path(stack.data_dir, "prefect", "block-types-registered")

    async def read() -> str:
        return marker.read_text() if marker.exists() else ""

    await eventually(read, lambda told: told == prefect.__version__)
