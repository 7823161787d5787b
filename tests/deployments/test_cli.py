"""The command line: what it says when something is wrong, and the commands that end."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine

import migrations
from deployments.initialise import default_resource
from deployments.stack import Stack
from tests.api.document import document
from tests.conftest import PREFECT_AWAY
from tests.deployments.conftest import COMMAND, FREE_PORTS, Run, environment

SECRET = "a secret of the tests, which is long enough"


@pytest.fixture
async def empty(postgres: URL) -> AsyncIterator[URL]:
    """A database with nothing in it."""
    name = f"cli_{uuid4().hex}"
    engine = create_async_engine(postgres, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
        yield postgres.set(database=name)
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()


def settings_of(database: URL) -> dict[str, str]:
    """All settings, with a Prefect that does not answer."""
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    return {
        "FRACTAL_DATABASE_URL": url,
        "PREFECT_API_URL": PREFECT_AWAY,
        "FRACTAL_JWT_SECRET": SECRET,
    }


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


# `up`


def test_the_version_is_told(fractal_prefect: Run) -> None:
    told = fractal_prefect("--version")

    assert (told.code, told.out) == (0, f"{version('fractal-prefect')}\n")


@pytest.mark.parametrize("option", ["--port", "--prefect-port"])
def test_a_port_in_use_is_named(
    fractal_prefect: Run, tmp_path: Path, used_port: int, option: str
) -> None:
    other = {"--port": "--prefect-port", "--prefect-port": "--port"}[option]
    ports = (option, used_port, other, 0)
    ended = fractal_prefect("up", "--data-dir", tmp_path / "data", *ports)
    assert ended.is_error(f"127.0.0.1:{used_port}", "Address already in use", option)


@pytest.mark.parametrize(
    ("place", "told"), [("file", "it is a file"), ("file/data", "Not a directory")]
)
def test_a_data_directory_that_cannot_be_is_named(
    fractal_prefect: Run, tmp_path: Path, place: str, told: str
) -> None:
    (tmp_path / "file").touch()
    ended = fractal_prefect("up", "--data-dir", tmp_path / place)
    assert ended.is_error(str(tmp_path / place), told, "--data-dir")


def test_a_data_directory_where_nothing_can_be_written_is_named(fractal_prefect: Run) -> None:
    ended = fractal_prefect("up", "--data-dir", "/proc/fractal")
    assert ended.is_error("/proc/fractal", "--data-dir")


def test_damaged_secrets_are_not_used(fractal_prefect: Run, tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"jwt_secret": ')
    ended = fractal_prefect("up", "--data-dir", tmp_path, *FREE_PORTS)
    assert ended.is_error(str(tmp_path / "secrets.json"), "damaged", "delete it")


def test_a_data_directory_has_one_stack_at_a_time(fractal_prefect: Run, stack: Stack) -> None:
    ended = fractal_prefect("up", "--data-dir", stack.data_dir, *FREE_PORTS)
    assert ended.is_error(str(stack.data_dir), "in use", "--data-dir")


@pytest.mark.parametrize(
    ("content", "told"), [('{"name": ', "cannot be read as JSON"), ("[]", "not a JSON object")]
)
def test_a_file_that_is_no_json_object_is_named(
    fractal_prefect: Run, tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "given.json"
    path.write_text(content)
    assert fractal_prefect("up", "--data-dir", tmp_path, "--resource", path).is_error(
        str(path), told
    )


# Settings and databases


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("api", "FRACTAL_JWT_SECRET"),
        ("api", "PREFECT_API_URL"),
        ("worker --resource here", "FRACTAL_DATABASE_URL"),
        ("worker --resource here", "PREFECT_API_URL"),
        ("notify --list", "PREFECT_API_URL"),
        ("db upgrade", "FRACTAL_DATABASE_URL"),
        ("init --admin-email admin@example.org", "FRACTAL_DATABASE_URL"),
    ],
)
def test_a_missing_setting_is_named(
    fractal_prefect: Run, database: URL, command: str, needed: str
) -> None:
    settings = settings_of(database)
    del settings[needed]
    assert fractal_prefect(*command.split(), **settings).is_error(needed, "is not set")


@pytest.mark.parametrize("command", ["worker --resource here", "db upgrade"])
def test_a_database_that_is_not_there_is_named(
    fractal_prefect: Run, database: URL, command: str
) -> None:
    settings = settings_of(database.set(database="no_such"))
    ended = fractal_prefect(*command.split(), **settings)
    assert ended.is_error("no_such", "cannot be reached", "FRACTAL_DATABASE_URL")


def test_a_database_server_that_does_not_answer_is_named_without_its_password(
    fractal_prefect: Run,
) -> None:
    ended = fractal_prefect(
        "db", "upgrade", FRACTAL_DATABASE_URL="postgresql://me:pw@127.0.0.1:9/f"
    )
    assert ended.is_error("127.0.0.1:9", "cannot be reached")
    assert ":pw@" not in ended.err


@pytest.mark.parametrize("command", ["api", "init --admin-email admin@example.org"])
def test_a_database_without_the_schema_is_to_be_upgraded(
    fractal_prefect: Run, empty: URL, command: str
) -> None:
    ended = fractal_prefect(*command.split(), **settings_of(empty))
    assert ended.is_error("is at schema none", "fractal-prefect db upgrade")


def test_upgrading_a_database_takes_its_url_alone_and_may_be_repeated(
    fractal_prefect: Run, empty: URL
) -> None:
    url = settings_of(empty)["FRACTAL_DATABASE_URL"]
    for _ in range(2):
        assert fractal_prefect("db", "upgrade", FRACTAL_DATABASE_URL=url).code == 0
    asyncio.run(migrations.require_newest(empty))


# `worker`, `init`, `openapi`


def test_a_worker_of_an_unknown_resource_names_the_known_ones(
    fractal_prefect: Run, stack: Stack
) -> None:
    ended = fractal_prefect("worker", "--resource", "elsewhere", **stack.environment)
    assert ended.is_error("'elsewhere'", "there are: local")


def test_an_api_whose_port_is_in_use_says_so(
    fractal_prefect: Run, database: URL, used_port: int
) -> None:
    ended = fractal_prefect("api", "--port", used_port, **settings_of(database))
    assert ended.is_error(f"127.0.0.1:{used_port}", "Address already in use", "--port")


def test_initialising_twice_is_harmless_and_tells_the_password_once(
    fractal_prefect: Run, empty: URL, tmp_path: Path
) -> None:
    asyncio.run(migrations.upgrade(empty))
    url = settings_of(empty)["FRACTAL_DATABASE_URL"]
    resource = tmp_path / "resource.json"
    resource.write_text(json.dumps(default_resource(tmp_path)))
    arguments = ("init", "--admin-email", "admin@example.org", "--resource", resource)
    first, second = (fractal_prefect(*arguments, FRACTAL_DATABASE_URL=url) for _ in range(2))
    assert first.code == second.code == 0
    assert "Password:" in first.out
    assert second.out == "Administrator: admin@example.org\n"


def test_an_invalid_resource_is_told_in_one_line(
    fractal_prefect: Run, database: URL, tmp_path: Path
) -> None:
    path = tmp_path / "resource.json"
    path.write_text(json.dumps(default_resource(tmp_path) | {"colour": "blue"}))
    url = settings_of(database)["FRACTAL_DATABASE_URL"]
    arguments = ("init", "--admin-email", "admin@example.org", "--resource", path)
    ended = fractal_prefect(*arguments, FRACTAL_DATABASE_URL=url)
    assert ended.is_error("The resource is invalid", "colour")


@pytest.mark.api
def test_the_openapi_document_needs_no_settings(fractal_prefect: Run, tmp_path: Path) -> None:
    path = tmp_path / "openapi.json"
    subprocess.run([COMMAND, "openapi", "--output", path], env=environment(tmp_path), check=True)
    assert json.loads(path.read_text()) == document()
    assert fractal_prefect("openapi").out == path.read_text() + "\n"


@pytest.mark.api
def test_an_output_that_cannot_be_written_is_named(fractal_prefect: Run, tmp_path: Path) -> None:
    path = tmp_path / "no" / "openapi.json"
    assert fractal_prefect("openapi", "--output", path).is_error(str(path), "cannot be written")
