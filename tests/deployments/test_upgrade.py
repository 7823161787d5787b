"""Upgrades from released versions while jobs run: the code, the database, and what goes on.

`first_version` and `last_version` name them and their commits.
"""

import time
from pathlib import Path

import pytest
from sqlalchemy import URL

from deployments.demo.client import FractalClient
from tests.consistency import events
from tests.deployments.moving.site import run_sql
from tests.deployments.upgrading import (
    ROOT,
    UNITS,
    begin_job,
    code_of,
    images_when_done,
    up,
)

pytestmark = pytest.mark.stack


def test_a_job_of_the_first_version_is_done_by_this_one(open_folder: Path) -> None:
    first_version = code_of("first_version", open_folder)
    data_dir, gate, journal = open_folder / "data", open_folder / "gate", open_folder / "journal"
    journal.touch()
    journal.chmod(0o666)
    with up(data_dir, first_version) as before:
        password = before.told("Password")
        client = FractalClient(before.told("REST API"), before.told("Admin"), password)
        job = begin_job(client, data_dir, {"journal": str(journal), "until": str(gate)})
        before.wait_until(lambda: events(journal, "begin"))
        assert schema_in(data_dir) == newest_schema(first_version) < newest_schema(ROOT)
        stopped = time.monotonic()
        before.end()
    gate.touch()  # so units end while nothing but their runner is there

    with up(data_dir) as after:
        print(f"Nothing but units for {time.monotonic() - stopped:.1f} s.")
        assert f"Going on: job {job['id']}" in after.output
        client = FractalClient(after.told("REST API"), after.told("Admin"), password)
        images = images_when_done(after, client, job)

    began_units, ended_units = events(journal, "begin"), events(journal, "end")
    assert set(began_units.values()) == set(ended_units.values()) == {1}
    assert len(began_units) == len(ended_units) == UNITS
    assert [each["attributes"] for each in images] == UNITS * [{"processed": 1}]


def newest_schema(code: Path) -> str:
    """The newest revision of the database that this code has."""
    return max(file.name[:4] for file in (code / "migrations" / "versions").glob("*.py"))


def schema_in(data_dir: Path) -> str:
    """The revision that the database is at."""
    url = URL.create("postgresql", "postgres", database="fractal")
    url = url.set(query={"host": str(data_dir / "postgres" / "data")})
    (row,) = run_sql(url, "SELECT version_num FROM alembic_version")
    return str(row[0])
