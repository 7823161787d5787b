"""Whatever is asked of the API, it answers as its OpenAPI document says, and never with 500."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from flows.engine.client import open_engine
from flows.engine.publication import publish_resource, withdraw_resource
from fractal_models.settings import Settings
from fractal_models.tables import JobV2, Profile, Resource
from tests import night
from tests.api.document import document
from tests.api.world import World, make_profile, make_world, raise_ids, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def without_tuples(schema: Any) -> Any:
    """With the items of a tuple in any order: Schemathesis gets some of them wrong."""
    if isinstance(schema, list):
        return [without_tuples(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: without_tuples(each) for key, each in schema.items()}
    if "prefixItems" in plain:
        plain["items"] = {"anyOf": plain.pop("prefixItems")}
    return plain


# By day always the same cases.
API = schemathesis.openapi.from_dict(
    without_tuples(document()), config=schemathesis.Config(seed=night.SEED or 0)
)
# Its cases are hundreds where a body has many fields.
API.config.phases.coverage.enabled = False


@pytest.fixture(scope="module")
def settings(settings: Settings, stack: Stack) -> Settings:
    """With a Prefect that answers."""
    return settings.model_copy(
        update={
            "prefect_api_url": stack.environment["PREFECT_API_URL"],
            "prefect_auth_string": SecretStr(stack.prefect_auth),
        }
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with (
        pytest.MonkeyPatch.context() as environment,
        serving(settings) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        environment.setenv("UV_OFFLINE", "1")  # names that are made up are none for an index
        yield client


@pytest.fixture(scope="module")
async def home(
    sessions: async_sessionmaker[AsyncSession],
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Profile]:
    """The profile of those who ask. Prefect knows its resource, but no worker runs its jobs."""
    async with sessions() as session, open_engine(settings) as engine:
        await raise_ids(session)
        profile = await make_profile(session, tmp_path_factory.mktemp("home"))
        await publish_resource(engine, await session.get_one(Resource, profile.resource_id))
        await session.commit()
        yield profile
        for resource in await session.exec(select(Resource)):
            await withdraw_resource(engine, resource.name)


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    """The world of each kind of user, while there is one."""
    return {}


@pytest.fixture(params=["user", "administrator"])
async def world(
    request: pytest.FixtureRequest,
    worlds: dict[str, World],
    client: httpx.Client,
    session: AsyncSession,
    settings: Settings,
    home: Profile,
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    """What the requests are about; a new one, if those before have taken something away."""
    await session.exec(update(JobV2).where(JobV2.status == "submitted").values(status="done"))
    await session.commit()
    kind = request.param
    if kind not in worlds or not worlds[kind].is_whole(client):
        folder = tmp_path_factory.mktemp("world")
        worlds[kind] = await make_world(
            client, session, settings, home, folder, is_superuser=kind == "administrator"
        )
    return worlds[kind]


@pytest.mark.nightly
@API.parametrize()
@hypothesis_settings(
    max_examples=night.examples(3, 8),
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(
    case: schemathesis.Case, world: World, client: httpx.Client
) -> None:
    case.path_parameters = world.aimed(case.path_parameters)
    case.query = world.aimed(case.query)
    case.body = world.aimed(case.body)

    answer = case.call(base_url=str(client.base_url), headers=world.headers)
    world.touched |= case.method != "GET"
    case.validate_response(answer, checks=CHECKS)
