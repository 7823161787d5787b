"""Nobody is locked out: of a data directory whose first start was interrupted, or of an account."""

import asyncio
import io
import json
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from fastapi_users.password import PasswordHelper
from sqlalchemy import URL
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.postgres import EmbeddedPostgres, embedded_postgres
from deployments.services import end_leftovers
from deployments.stack import reached_postgres
from fractal_models.database import open_database
from fractal_models.tables import UserOAuth
from fractal_models.variables import SettingsError
from tests.deployments import conftest
from tests.deployments.conftest import ONE_API, Run, Up

pytestmark = pytest.mark.api

ADMIN = "admin@example.org"
fractal_prefect = conftest.fractal_prefect


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL may use: for root, it runs as another user."""
    with tempfile.TemporaryDirectory(prefix="fractal-lockout-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder, "data")


async def ask(url: URL, query: str) -> object:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain, timeout=30)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def is_password(url: URL, password: str) -> bool:
    async with open_database(url) as sessions, sessions() as session:
        found = await session.exec(select(UserOAuth).where(UserOAuth.email == ADMIN))
        admin = found.unique().one()
    return PasswordHelper().verify_and_update(password, admin.hashed_password)[0]


@pytest.mark.parametrize(
    "made", ["data/PG_VERSION", "data/global/pg_control", "data/postmaster.pid", "data/base/16384"]
)
def test_a_first_start_that_was_killed_repairs_itself(folder: Path, made: str) -> None:
    code = (
        "import sys; from pathlib import Path; from deployments.postgres import EmbeddedPostgres;"
        "EmbeddedPostgres(Path(sys.argv[1])).start()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)]) as first:
        while not (folder / made).exists():
            assert first.poll() is None
            time.sleep(0.001)
        first.kill()
    with embedded_postgres(folder) as postgres:
        for url in (postgres.fractal, postgres.prefect):
            assert asyncio.run(ask(url, "SELECT 1")) == 1


def test_databases_are_never_taken_for_what_a_killed_start_has_left(folder: Path) -> None:
    with embedded_postgres(folder) as postgres:
        asyncio.run(ask(postgres.fractal, "SELECT 7 AS kept INTO precious"))
    (folder / "databases-made").unlink()
    with embedded_postgres(folder) as postgres:
        assert asyncio.run(ask(postgres.fractal, "SELECT kept FROM precious")) == 7


def test_a_password_is_kept_before_it_counts_and_can_be_set(
    folder: Path, fractal_prefect: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = Up(folder, *ONE_API)
    try:
        up.wait_until(lambda: "The databases are up to date." in up.output)  # before it is ready
        assert "Password" not in up.output
    finally:
        up.end(signal.SIGKILL)
    secrets = folder / "secrets.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    end_leftovers(folder / "services.json")
    kept = json.loads(secrets.read_text())["admin_password"]
    with reached_postgres(folder) as postgres:
        url = postgres.fractal
        assert asyncio.run(is_password(url, kept))

        monkeypatch.setattr(sys, "stdin", io.StringIO("a new one\n"))
        ended = fractal_prefect("user", "set-password", ADMIN, "--data-dir", folder)
        assert (ended.code, ended.out) == (0, f"{ADMIN} has a new password.\n")
        assert asyncio.run(is_password(url, "a new one"))
    EmbeddedPostgres(folder / "postgres").stop()

    monkeypatch.setattr(sys, "stdin", io.StringIO("another\n"))
    ended = fractal_prefect("user", "set-password", ADMIN, "--data-dir", folder)
    assert ended.code == 0, ended.err
    assert EmbeddedPostgres(folder / "postgres").pid is None  # it was started for that only


@pytest.fixture
def admins_database(database: URL, sessions: object) -> dict[str, str]:
    """The variable of a database that has the schema."""
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    return {"FRACTAL_DATABASE_URL": url}


def test_a_made_up_password_is_told_before_it_counts(
    fractal_prefect: Run,
    admins_database: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: list[str] = []

    async def commit(self: AsyncSession) -> None:
        told.append(capsys.readouterr().out)
        raise SettingsError("the power fails")

    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", commit)
        fractal_prefect("init", "--admin-email", ADMIN, **admins_database)
    assert "Password:" in told[0]
    ended = fractal_prefect("init", "--admin-email", ADMIN, **admins_database)
    assert "Password:" in ended.out  # nobody was made before


@pytest.mark.parametrize("command", ["up", "init"])
def test_a_password_is_no_argument_of_a_program(fractal_prefect: Run, command: str) -> None:
    ended = fractal_prefect(command, "--admin-email", ADMIN, "--admin-password", "secret")
    assert ended.code == 2
    assert "No such option" in ended.err


@pytest.mark.parametrize("way", ["variable", "file", "standard input"])
def test_a_password_is_given_by_a_variable_a_file_or_standard_input(
    fractal_prefect: Run,
    admins_database: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    email, password, given = f"{way.split()[0]}@example.org", f"the {way}", ()
    if way == "variable":
        admins_database["FRACTAL_ADMIN_PASSWORD"] = password
    elif way == "file":
        (tmp_path / "password").write_text(f"{password}\n")
        given = ("--admin-password-file", tmp_path / "password")
    else:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
        given = ("--admin-password-file", "-")
    ended = fractal_prefect("init", "--admin-email", email, *given, **admins_database)
    assert (ended.code, "Password" in ended.out) == (0, False), ended.err
    again = fractal_prefect("init", "--admin-email", email, *given, **admins_database)
    assert "Kept" not in again.out


@pytest.mark.parametrize(
    ("email", "password", "told"),
    [("nobody@example.org", "long enough", "nobody@example.org"), (ADMIN, "abc", "4 characters")],
)
def test_a_password_that_cannot_be_set_says_why(
    fractal_prefect: Run,
    admins_database: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    email: str,
    password: str,
    told: str,
) -> None:
    fractal_prefect("init", "--admin-email", ADMIN, **admins_database)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
    assert fractal_prefect("user", "set-password", email, **admins_database).is_error(told)


def test_a_folder_without_an_installation_is_named(
    fractal_prefect: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("long enough\n"))
    ended = fractal_prefect("user", "set-password", ADMIN, "--data-dir", tmp_path)
    assert ended.is_error("There is no installation", str(tmp_path))
