"""Installations that end while a job runs, and go on with it: after an upgrade, or restored."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deployments.demo.client import FractalClient
from tests.consistency import task_bodies
from tests.deployments.conftest import ONE_API, Up

ROOT = Path(__file__).parents[2]
UNITS = 12


def code_of(version: str, folder: Path) -> Path:
    """The code of a released version, which the file of this name tells with its commit."""
    name, commit = Path(__file__).with_name(version).read_text().split()
    archived = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=False
    )
    if archived.returncode != 0:
        pytest.skip(f"Version {name} ({commit}) is not here: {archived.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as tar:
        tar.extractall(folder / name, filter="data")
    return folder / name


@contextmanager
def up(data_dir: Path, code: Path | None = None) -> Iterator[Up]:
    """A `fractal-prefect up` that is ready; of other code than this, if that is given."""
    with pytest.MonkeyPatch.context() as patch:
        if code is not None:
            patch.setenv("PYTHONPATH", str(code))  # before what is installed
            patch.chdir(code)
        started = Up(data_dir, *ONE_API)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.clean_up()


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


def images_when_done(up: Up, client: FractalClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    """The images of the dataset of a job, which must be done in the end."""
    project = f"/api/v2/project/{job['project_id']}"
    path = f"{project}/job/{job['id']}/"
    up.wait_until(lambda: client.get(path)["status"] != "submitted")
    ended = client.get(path)
    assert ended["status"] == "done", ended["log"]
    exported = client.get(f"{project}/dataset/{job['dataset_id']}/export/")
    return list(exported["images"])
