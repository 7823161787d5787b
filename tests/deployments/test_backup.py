"""A backup of an installation that runs a job, restored where nothing is left of it."""

import os
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url

from deployments.backups.dumps import Programs, embedded_programs
from deployments.demo.client import FractalClient
from deployments.postgres import embedded_postgres
from tests.conftest import PREFECT_AWAY
from tests.consistency import events
from tests.deployments.conftest import Run
from tests.deployments.moving.site import run_sql
from tests.deployments.upgrading import UNITS, begin_job, images_when_done, up

pytestmark = pytest.mark.stack


def test_jobs_go_on_after_a_backup_is_restored(open_folder: Path, fractal_prefect: Run) -> None:
    """One of an `up`, and one of its databases as if they were a site's own PostgreSQL."""
    data_dir, gate, journal = open_folder / "data", open_folder / "gate", open_folder / "journal"
    of_up, of_site, settings = open_folder / "up.tar", open_folder / "site.tar", open_folder / "etc"
    settings.mkdir()
    (settings / "api.env").write_text("FRACTAL_JWT_SECRET=of the site\n")
    journal.touch()
    journal.chmod(0o666)
    with up(data_dir) as before:
        password = before.told("Password")
        client = FractalClient(before.told("REST API"), before.told("Admin"), password)
        job = begin_job(client, data_dir, {"journal": str(journal), "until": str(gate)})
        before.wait_until(lambda: events(journal, "begin"))
        environment = data_dir / "tasks" / "1" / "a" / "venv"
        environment.mkdir(parents=True)
        (environment / "python").symlink_to("/usr/bin/python3")
        made = fractal_prefect("backup", of_up, "--data-dir", data_dir)
        assert made.code == 0, made.err
        assert stat.S_IMODE(of_up.stat().st_mode) == 0o600
        site = settings_of(data_dir)
        made = fractal_prefect("backup", of_site, "--settings", settings, **site)
        assert made.code == 0, made.err
        refused = fractal_prefect("restore", of_up)
        assert refused.is_error(f"{data_dir} exists")
        refused = fractal_prefect("restore", of_site, **site)
        assert refused.is_error("The database 'prefect' has ", "an empty one")
        before.end()
    gate.touch()  # so units end
    for path in (data_dir, settings):
        shutil.rmtree(path)

    restored = fractal_prefect("restore", of_up)

    assert restored.code == 0, restored.err
    assert (environment / "python").is_symlink()
    with embedded_postgres(data_dir / "postgres"):
        assert in_database(data_dir, "fractal", "SELECT id FROM jobv2") == [job["id"]]
        assert in_database(data_dir, "prefect", "SELECT count(*) FROM flow_run") == [1]
        for name in ("fractal", "prefect"):
            in_database(data_dir, "postgres", f"DROP DATABASE {name}")
            in_database(data_dir, "postgres", f"CREATE DATABASE {name}")
        shutil.rmtree(data_dir / "tasks")

        restored = fractal_prefect("restore", of_site, **site)

    assert restored.code == 0, restored.err
    assert (environment / "python").is_symlink()
    assert (settings / "api.env").read_text() == "FRACTAL_JWT_SECRET=of the site\n"
    with up(data_dir) as after:
        assert f"Going on: job {job['id']}" in after.output
        client = FractalClient(after.told("REST API"), after.told("Admin"), password)
        images = images_when_done(after, client, job)
    assert [each["attributes"] for each in images] == UNITS * [{"processed": 1}]


def settings_of(data_dir: Path) -> dict[str, str]:
    """Those of a site whose PostgreSQL is that of an `up`, with the programs of its version."""
    host = data_dir / "postgres" / "data"
    return {
        "FRACTAL_DATABASE_URL": f"postgresql://postgres:unused@/fractal?host={host}",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
            f"postgresql+asyncpg://postgres@/prefect?host={host}&ssl=prefer&prepared_statement_cache_size=0"
        ),
        "PREFECT_API_URL": PREFECT_AWAY,
        "PATH": f"{embedded_programs().folder}:{os.environ['PATH']}",
    }


def in_database(data_dir: Path, name: str, statement: str) -> list[Any]:
    url = URL.create("postgresql", "postgres", database=name)
    url = url.set(query={"host": str(data_dir / "postgres" / "data")})
    return [value for (value,) in run_sql(url, statement)]


def test_a_backup_of_nothing_leaves_nothing(open_folder: Path, fractal_prefect: Run) -> None:
    refused = fractal_prefect("backup", open_folder / "b.tar", "--data-dir", open_folder / "none")

    assert refused.is_error("There is no installation in")
    assert list(open_folder.iterdir()) == []


def test_what_is_no_backup_is_refused(open_folder: Path, fractal_prefect: Run) -> None:
    other = open_folder / "other.tar"
    subprocess.run(["tar", "--create", "--file", other, "-C", "/", "etc/hostname"], check=True)

    assert fractal_prefect("restore", other).is_error("is no backup of fractal-prefect")
    assert fractal_prefect("restore", open_folder / "none.tar").is_error("none.tar")


def test_programs_that_are_missing_or_too_old_are_told(
    open_folder: Path, fractal_prefect: Run, database: URL
) -> None:
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    site = {
        "FRACTAL_DATABASE_URL": url,
        "FRACTAL_PREFECT_DATABASE_URL": url,
        "PREFECT_API_URL": PREFECT_AWAY,
        "PATH": str(open_folder),
    }
    backup = partial(fractal_prefect, "backup", open_folder / "b.tar", **site)
    assert backup().is_error("pg_dump is not in PATH", "apt install postgresql-client")
    old = open_folder / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.22 (Debian 12.22-1)'\n")
    old.chmod(0o755)
    assert backup().is_error(
        "12.22", "than the server, PostgreSQL 1", "install postgresql-client-1"
    )
    assert list(open_folder.iterdir()) == [old]


def test_a_password_is_not_among_the_arguments_of_programs(open_folder: Path) -> None:
    program = open_folder / "pg_dump"
    program.write_text('#!/bin/sh\necho "$PGPASSWORD $*" > "$3"\n')
    program.chmod(0o755)
    url = make_url("postgresql+asyncpg://me:se%40cret@db/fractal?sslmode=require")
    Programs(open_folder).dump(url, open_folder / "dump")
    told = (open_folder / "dump").read_text().split()
    assert told == [
        "se@cret",
        *("--format=custom", "--file", str(open_folder / "dump")),
        "postgresql://me@db/fractal?sslmode=require",
    ]
