"""A backup of an installation that runs a job, restored where nothing is left of it."""

import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.demo.client import FractalClient
from tests.consistency import events
from tests.deployments.conftest import Run
from tests.deployments.test_upgrade import UNITS, begin_job, images_when_done, up

pytestmark = pytest.mark.stack


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not below pytest's folder, which it closes to other users: PostgreSQL runs as another one.
    with tempfile.TemporaryDirectory(prefix="fractal-backup-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_jobs_go_on_after_a_backup_is_restored(folder: Path, fractal_prefect: Run) -> None:
    data_dir, gate, journal = folder / "data", folder / "gate", folder / "journal"
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
        made = fractal_prefect("backup", folder / "backup.tar", "--data-dir", data_dir)
        assert made.code == 0, made.err
        assert stat.S_IMODE((folder / "backup.tar").stat().st_mode) == 0o600
        refused = fractal_prefect("restore", folder / "backup.tar")
        assert refused.is_error(f"{data_dir} exists")
        before.end()
    gate.touch()  # so units end
    shutil.rmtree(data_dir)

    restored = fractal_prefect("restore", folder / "backup.tar")

    assert restored.code == 0, restored.err
    assert (environment / "python").is_symlink()
    with up(data_dir) as after:
        assert f"Going on: job {job['id']}" in after.output
        client = FractalClient(after.told("REST API"), after.told("Admin"), password)
        images = images_when_done(after, client, job)
    assert [each["attributes"] for each in images] == UNITS * [{"processed": 1}]


def test_a_backup_of_nothing_leaves_nothing(folder: Path, fractal_prefect: Run) -> None:
    refused = fractal_prefect("backup", folder / "b.tar", "--data-dir", folder / "none")

    assert refused.is_error("There is no installation in")
    assert list(folder.iterdir()) == []


def test_what_is_no_backup_is_refused(folder: Path, fractal_prefect: Run) -> None:
    other = folder / "other.tar"
    subprocess.run(["tar", "--create", "--file", other, "-C", "/", "etc/hostname"], check=True)

    assert fractal_prefect("restore", other).is_error("is no backup of fractal-prefect")
    assert fractal_prefect("restore", folder / "none.tar").is_error("none.tar")
