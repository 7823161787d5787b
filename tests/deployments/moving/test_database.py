"""Databases that are not to be taken, moves that are interrupted, and what only one side knows."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

import migrations
from deployments.moving.plan import REVISIONS
from fractal_models.schemas.base import CONTRACT_VERSION
from tests.conftest import PREFECT_AWAY
from tests.deployments.conftest import COMMAND, Ended, Run, environment
from tests.deployments.moving.site import rows_of_tables, run_sql, tables_of
from tests.differential.reference import NoReferenceError, downgrade, make_database

RIGHT_REVISION = "0c5e3f92c3a8"
SITE = [
    "INSERT INTO resource (type, name, timestamp_created, jobs_local_dir, tasks_local_dir,"
    " jobs_runner_config, jobs_poll_interval, tasks_python_config, tasks_pixi_config,"
    " prevent_new_submissions)"
    " VALUES ('local', 'here', now(), '/j', '/t', '{}', 0, '{}', '{}', false)",
    "INSERT INTO projectv2 (name, resource_id, timestamp_created, is_starred)"
    " VALUES ('p', 1, now(), false)",
    "INSERT INTO user_oauth (email, hashed_password, is_active, is_superuser, is_verified,"
    " is_guest, project_dirs) VALUES ('ann@example.org', 'hash', true, true, true, false, '{/d}')",
]


def dataset(images: str) -> str:
    """A statement that makes a dataset with these images, an SQL expression."""
    return (
        "INSERT INTO datasetv2 (name, project_id, timestamp_created, zarr_dir, is_starred, images)"
        f" VALUES ('d', 1, now(), '/z', false, {images})"
    )


def many_images(number: int) -> str:
    return (
        "(SELECT jsonb_agg(jsonb_build_object('zarr_url', '/z/' || n, 'attributes',"
        f" jsonb_build_object('well', n % 96))) FROM generate_series(1, {number}) AS n)"
    )


@pytest.fixture(scope="module")
def template(postgres: URL) -> URL:
    """A database as fractal-server makes it, without rows; of a user who may do little else."""
    run_sql(postgres, "CREATE ROLE site LOGIN CREATEDB")
    template = postgres.set(username="site", database="fractal_server_template")
    try:
        make_database(template)
    except NoReferenceError as error:
        pytest.skip(f"There is no fractal-server here: {error}")
    return template


@pytest.fixture
def theirs(template: URL) -> Iterator[URL]:
    """A database of fractal-server, with a project."""
    name = f"theirs_{uuid4().hex}"
    maintenance = template.set(database="postgres")
    run_sql(maintenance, f"CREATE DATABASE {name} TEMPLATE {template.database}")
    database = template.set(database=name)
    run_sql(database, *SITE)
    yield database
    run_sql(maintenance, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty(postgres: URL) -> Iterator[URL]:
    name = f"empty_{uuid4().hex}"
    run_sql(postgres, f"CREATE DATABASE {name}")
    yield postgres.set(database=name)
    run_sql(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def settings_of(database: URL) -> dict[str, str]:
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    return {"FRACTAL_DATABASE_URL": url}


def is_refused(ended: Ended, database: URL, told: str) -> bool:
    """Whether the command says this to a person, and the database is fractal-server's still."""
    assert ended.code == 1, ended
    assert "Traceback" not in ended.out + ended.err
    assert ended.err.startswith("Error: ")
    assert told in ended.err
    (row,) = run_sql(database, "SELECT version_num FROM alembic_version")
    return "images" in columns_of(database, "datasetv2") and len(row[0]) == len(RIGHT_REVISION)


def columns_of(database: URL, table: str) -> set[str]:
    query = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
    return {row[0] for row in run_sql(database, f"{query} AND table_schema = 'public'")}


def values_of(database: URL, query: str) -> list[Any]:
    return [row[0] for row in run_sql(database, query)]


def test_another_version_is_told_the_right_one(theirs: URL, fractal_prefect: Run) -> None:
    run_sql(theirs, "UPDATE alembic_version SET version_num = '66f492f489c3'")

    ended = fractal_prefect("db", "adopt", **settings_of(theirs))

    assert is_refused(ended, theirs, "install fractal-server 2.25.4")


def test_other_commands_tell_of_this_one(theirs: URL, fractal_prefect: Run) -> None:
    for command in (("db", "upgrade"), ("init", "--admin-email", "a@example.org")):
        ended = fractal_prefect(*command, **settings_of(theirs))
        assert ended.is_error("`fractal-prefect db adopt`")


def test_the_oldest_version_is_taken_and_given_back_as_it_was(
    theirs: URL, fractal_prefect: Run
) -> None:
    oldest = next(iter(REVISIONS))
    downgrade(theirs, oldest)
    before = columns_of(theirs, "historyunit")

    ended_well(fractal_prefect("db", "adopt", **settings_of(theirs)))
    ended_well(fractal_prefect("db", "return", **settings_of(theirs)))

    assert values_of(theirs, "SELECT version_num FROM alembic_version") == [oldest]
    assert columns_of(theirs, "historyunit") == before


def test_what_prefect_is_not_told_is_told_by_the_next_call(
    theirs: URL, fractal_prefect: Run
) -> None:
    settings = settings_of(theirs) | {"PREFECT_API_URL": PREFECT_AWAY}

    for told in ("The database is fractal-prefect's now.", "was taken over from fractal-server"):
        ended = fractal_prefect("db", "adopt", **settings)
        assert told in ended.out
        assert ended.is_error("Resource 'here' has no work pool yet: run this again", "Prefect")


def test_a_database_without_fractal_server_is_not_taken(empty: URL, fractal_prefect: Run) -> None:
    assert fractal_prefect("db", "adopt", **settings_of(empty)).is_error("no fractal-server in")
    assert fractal_prefect("db", "return", **settings_of(empty)).is_error("was not taken over")

    asyncio.run(migrations.upgrade(empty))

    assert fractal_prefect("db", "adopt", **settings_of(empty)).is_error("nothing to adopt")
    assert fractal_prefect("db", "return", **settings_of(empty)).is_error("was not taken over")


def test_a_server_that_runs_stands_in_the_way(theirs: URL, fractal_prefect: Run) -> None:
    url = settings_of(theirs)["FRACTAL_DATABASE_URL"]
    with subprocess.Popen([sys.executable, "-c", _HOLD, url], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        ended = fractal_prefect("db", "adopt", **settings_of(theirs))
        other.kill()

    assert is_refused(ended, theirs, "Stop them: a server (1).")


_HOLD = """
import asyncio, asyncpg, sys
async def hold():
    settings = {"application_name": "a server"}
    connection = await asyncpg.connect(sys.argv[1], server_settings=settings)
    print("connected", flush=True)
    await asyncio.sleep(600)
asyncio.run(hold())
"""


def test_rows_that_do_not_fit_are_told(theirs: URL, fractal_prefect: Run) -> None:
    run_sql(
        theirs,
        "ALTER TABLE user_oauth DROP CONSTRAINT ck_user_oauth_superuser_is_not_guest",
        "UPDATE user_oauth SET is_guest = true",
        dataset("jsonb_build_array(jsonb_build_object('zarr_url', repeat('/z', 1001)))"),
        "CREATE TABLE of_somebody_else (id int)",
    )

    checked = fractal_prefect("db", "adopt", "--check", **settings_of(theirs))
    ended = fractal_prefect("db", "adopt", **settings_of(theirs))

    assert checked == ended
    assert is_refused(ended, theirs, "user_oauth: 1 row against a rule: (NOT (is_superuser AND")
    assert "Datasets 1: images without a zarr_url, or with one of more than" in ended.err
    assert "of neither program; move them to another schema: of_somebody_else." in ended.err


def test_a_move_that_is_killed_changes_nothing_and_can_be_repeated(
    theirs: URL, fractal_prefect: Run, tmp_path: Path
) -> None:
    run_sql(theirs, *(dataset(many_images(number)) for number in (50_000, 20_000)))
    run_sql(theirs, "ALTER ROLE site SET statement_timeout = '100ms'")
    rows = rows_of_tables(theirs, tables_of(theirs))
    command = [COMMAND, "db", "adopt"]
    with subprocess.Popen(
        command, env=environment(tmp_path) | settings_of(theirs), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        told = next(line for line in process.stdout if line.startswith("images: "))
        os.kill(process.pid, signal.SIGKILL)
    assert told.startswith("images: 50,000 of 70,000")
    assert "images" in columns_of(theirs, "datasetv2")
    assert rows_of_tables(theirs, tables_of(theirs)) == rows

    ended = fractal_prefect("db", "adopt", **settings_of(theirs))

    assert ended.code == 0, ended
    assert values_of(theirs, "SELECT count(*) FROM datasetimage") == [70_000]
    run_sql(theirs, "ALTER ROLE site RESET statement_timeout")
    again = fractal_prefect("db", "adopt", **settings_of(theirs))
    assert "was taken over from fractal-server before" in again.out


def test_what_only_one_of_them_knows_is_kept_for_it(
    postgres: URL, theirs: URL, fractal_prefect: Run
) -> None:
    run_sql(postgres.set(database=theirs.database), "CREATE EXTENSION pg_stat_statements")
    twice = [{"zarr_url": "/z/a"}, {"zarr_url": "/z/b"}, {"zarr_url": "/z/a", "types": {"x": True}}]
    run_sql(
        theirs,
        dataset(f"'{str(twice).replace(chr(39), chr(34)).replace('True', 'true')}'"),
        "INSERT INTO taskgroupactivityv2 (user_id, timestamp_started, pkg_name, version, status,"
        " action, fractal_server_version) VALUES (1, now(), 'p', '1', 'OK', 'delete', '2.25.1')",
    )
    before = values_of(theirs, "SELECT images::text FROM datasetv2")
    settings = settings_of(theirs)

    assert "Datasets 1: 1 image in the list a second" in ended_well(
        fractal_prefect("db", "adopt", **settings)
    )
    run_sql(
        theirs,
        "UPDATE resource SET name = 'renamed'",
        "UPDATE user_oauth SET login_generation = 5",
        "INSERT INTO taskgroupactivityv2 (user_id, timestamp_started, pkg_name, version, status,"
        " action) VALUES (1, now(), 'p', '1', 'OK', 'delete')",
        "INSERT INTO schedule (project_id, dataset_id, user_id, deployment_name, timestamp_created)"
        " VALUES (1, 1, 1, 'nightly', now())",
        "INSERT INTO projectv2 (name, resource_id, timestamp_created) VALUES ('new', 1, now())",
    )
    told = ended_well(fractal_prefect("db", "return", **settings))

    assert "1 schedule: kept in" in told
    assert "fractal_prefect.kept_user_oauth: 1 row (login_generation)" in told
    images = values_of(theirs, "SELECT images::text FROM datasetv2")
    query = "SELECT image->>'zarr_url' FROM datasetv2, jsonb_array_elements(images) AS image"
    assert values_of(theirs, query) == ["/z/a", "/z/b", "/z/a"]
    assert before != images  # fractal-prefect writes all fields of each
    versions = "SELECT fractal_server_version FROM taskgroupactivityv2 ORDER BY id"
    assert values_of(theirs, versions) == ["2.25.1", CONTRACT_VERSION]
    new = "INSERT INTO projectv2 (name, resource_id, timestamp_created, is_starred)"
    run_sql(theirs, f"{new} VALUES ('newer', 1, now(), false)", "DELETE FROM datasetv2")
    assert values_of(theirs, "SELECT id FROM projectv2 ORDER BY id") == [1, 2, 3]

    ended_well(fractal_prefect("db", "adopt", **settings))

    assert values_of(theirs, "SELECT name || work_pool FROM resource") == ["renamedhere"]
    assert values_of(theirs, "SELECT login_generation FROM user_oauth") == [5]
    (schedule,) = run_sql(theirs, "SELECT deployment_name, project_id, dataset_id FROM schedule")
    assert tuple(schedule) == ("nightly", 1, None)
    assert run_sql(theirs, "SELECT FROM pg_namespace WHERE nspname = 'fractal_prefect'") == []


def test_jobs_and_new_passwords_stand_in_the_way_of_a_return_or_are_told(
    theirs: URL, fractal_prefect: Run
) -> None:
    settings = settings_of(theirs)
    ended_well(fractal_prefect("db", "adopt", **settings))
    run_sql(
        theirs,
        "INSERT INTO jobv2 (user_email, fractal_server_version, first_task_index, last_task_index,"
        " start_timestamp, status) VALUES ('ann@example.org', '1', 0, 0, now(), 'submitted')",
        "UPDATE user_oauth SET hashed_password = '$argon2id$v=19'",
    )

    ended = fractal_prefect("db", "return", **settings)
    assert ended.code == 1
    assert "Job 1 of ann@example.org on dataset None is submitted: wait for its end" in ended.err
    assert "Give these users new ones there: ann@example.org." in ended.out
    run_sql(theirs, "UPDATE jobv2 SET status = 'done'")
    ended_well(fractal_prefect("db", "return", **settings))
    assert values_of(theirs, "SELECT version_num FROM alembic_version") == [RIGHT_REVISION]


def ended_well(ended: Ended) -> str:
    assert ended.code == 0, ended
    return ended.out
