"""An upgrade from the last version while a job runs: the code, the database, and what goes on.

`last_version` names that version and its commit.
"""

import io
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from deployments.demo.client import FractalClient
from tests.consistency import events, task_bodies
from tests.deployments.conftest import ONE_API, Up
from tests.deployments.moving.site import run_sql

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
UNITS = 12
PASSWORD = "of the upgrade"


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not below pytest's folder, which it closes to other users: PostgreSQL runs as another one.
    with tempfile.TemporaryDirectory(prefix="fractal-upgrade-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def last_version(folder: Path) -> Path:
    """The code of the last version."""
    name, commit = Path(__file__).with_name("last_version").read_text().split()
    archived = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=False
    )
    if archived.returncode != 0:
        pytest.skip(f"Version {name} ({commit}) is not here: {archived.stderr.decode().strip()}")
    code = folder / "code"
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as tar:
        tar.extractall(code, filter="data")
    return code


@contextmanager
def up(data_dir: Path) -> Iterator[Up]:
    started = Up(data_dir, *ONE_API)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.clean_up()


def test_a_job_of_the_last_version_is_done_by_this_one(
    folder: Path, last_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, gate, journal = folder / "data", folder / "gate", folder / "journal"
    journal.touch()
    journal.chmod(0o666)
    monkeypatch.setenv("PYTHONPATH", str(last_version))  # before what is installed
    monkeypatch.chdir(last_version)
    with up(data_dir) as before:
        password = before.told("Password")
        client = FractalClient(before.told("REST API"), before.told("Admin"), password)
        job = begin_job(client, data_dir, {"journal": str(journal), "until": str(gate)})
        before.wait_until(lambda: events(journal, "begin"))
        assert schema_in(data_dir) == newest_schema(last_version) < newest_schema(ROOT)
        stopped = time.monotonic()
        before.end()
    gate.touch()  # so units end while nothing but their runner is there
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.chdir(ROOT)

    with up(data_dir) as after:
        print(f"Nothing but units for {time.monotonic() - stopped:.1f} s.")
        assert f"Going on: job {job['id']}" in after.output
        client = FractalClient(after.told("REST API"), after.told("Admin"), password)
        images = images_when_done(after, client, job)

    began_units, ended_units = events(journal, "begin"), events(journal, "end")
    assert set(began_units.values()) == set(ended_units.values()) == {1}
    assert len(began_units) == len(ended_units) == UNITS
    assert [each["attributes"] for each in images] == UNITS * [{"processed": 1}]


def images_when_done(up: Up, client: FractalClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    """The images of the dataset of a job, which must be done in the end."""
    project = f"/api/v2/project/{job['project_id']}"
    path = f"{project}/job/{job['id']}/"
    up.wait_until(lambda: client.get(path)["status"] != "submitted")
    ended = client.get(path)
    assert ended["status"] == "done", ended["log"]
    exported = client.get(f"{project}/dataset/{job['dataset_id']}/export/")
    return list(exported["images"])


def begin_job(client: FractalClient, data_dir: Path, arguments: dict[str, Any]) -> Any:
    """A job of one unit for each of some images."""
    base = f"/api/v2/project/{client.post('/api/v2/project/', {'name': 'upgrade'})['id']}"
    (body,) = (each for each in task_bodies("1") if each["name"] == "Journal process")
    task = client.post("/api/v2/task/", body)
    workflow = client.post(f"{base}/workflow/", {"name": "upgrade"})
    entry = {"task_id": task["id"], "args_parallel": arguments}
    client.post(f"{base}/workflow/{workflow['id']}/wftask/", [entry])
    zarr_dir = str(data_dir / "projects" / "plate")
    images = [{"zarr_url": f"{zarr_dir}/{n}"} for n in range(UNITS)]
    dataset = client.post(
        f"{base}/dataset/import/", {"name": "plate", "zarr_dir": zarr_dir, "images": images}
    )
    query = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
    return client.post(f"{base}/job/submit/", {}, **query)


def newest_schema(code: Path) -> str:
    """The newest revision of the database that this code has."""
    return max(file.name[:4] for file in (code / "migrations" / "versions").glob("*.py"))


def schema_in(data_dir: Path) -> str:
    """The revision that the database is at."""
    url = URL.create("postgresql", "postgres", database="fractal")
    url = url.set(query={"host": str(data_dir / "postgres" / "data")})
    (row,) = run_sql(url, "SELECT version_num FROM alembic_version")
    return str(row[0])
