"""Files of jobs and of the stack are their owner's alone, whatever the umask; so are secrets."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments import secrecy
from deployments.data_dir import DataDirError, make_data_dir
from deployments.postgres import EmbeddedPostgres, PostgresError
from deployments.services import Service
from deployments.stack import Stack
from flows.process.accounts import Account
from flows.units.files import write_whole
from flows.units.job_folder import JobFolder, archive_folder, archive_path
from fractal_models.variables import SECRETS
from tests.lab import Lab, eventually
from tests.os_user import PYTHON


@pytest.fixture
def umask() -> Iterator[None]:
    """The loosest umask that a server can have."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o7777)


@pytest.mark.usefixtures("umask")
def test_the_folder_of_a_job_and_its_archive_are_private(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs" / "1")
    folder.create()
    folder.log("it begins")
    archive_folder(folder.path)

    assert mode(folder.path) == "0o700"
    assert mode(folder.path.parent) == "0o711"
    assert mode(folder.log_path) == mode(folder.archive_path) == "0o600"


@pytest.mark.usefixtures("umask")
def test_the_folder_of_a_job_that_goes_on_becomes_private(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    folder = JobFolder(tmp_path / "1")
    folder.create()

    assert mode(folder.path) == "0o700"


@pytest.mark.usefixtures("umask")
def test_files_that_are_whole_as_soon_as_they_are_there_are_private(tmp_path: Path) -> None:
    write_whole(tmp_path / "batch.json", b"{}")

    assert mode(tmp_path / "batch.json") == "0o600"


@pytest.mark.usefixtures("umask")
def test_logs_of_services_are_private(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    service = Service("true", ["true"], {}, tmp_path / "logs" / "true.log")
    service.start()
    assert service.process is not None
    service.process.wait()

    assert (mode(tmp_path / "logs"), mode(service.log)) == ("0o700", "0o600")


def test_a_service_is_given_no_secrets_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "of another")
    own = {"FRACTAL_DATABASE_URL": "its own"}
    service = Service("env", ["env"], own, tmp_path / "logs" / "env.log")
    service.start()
    assert service.process is not None
    service.process.wait()

    lines = service.log.read_text().splitlines()
    assert "FRACTAL_DATABASE_URL=its own" in lines
    assert not [line for line in lines if "of another" in line]


async def test_nobody_else_reads_what_a_stack_has(lab: Lab, stack: Stack) -> None:
    """Others enter the folders of the tasks and of the images, and see nothing but these."""
    workflow = await lab.workflow("Process")
    job = await lab.run(workflow, await lab.dataset("a"))
    assert job["status"] == "done"

    open_to_all = {"tasks", "projects", "package-cache"}
    wide = [
        path
        for path in stack.data_dir.iterdir()
        if path.name not in open_to_all and path.stat().st_mode & 0o044
    ]
    folder = Path(job["working_dir"])
    archive = archive_path(folder)
    await eventually(lambda: asyncio.to_thread(archive.exists), bool)

    assert wide == [stack.data_dir / "postgres"] * (os.geteuid() == 0)
    assert mode(stack.data_dir / "postgres" / "data") == "0o700"
    assert [path for path in (folder, archive) if path.stat().st_mode & 0o066] == []


def test_the_secret_of_logins_is_known_to_the_rest_api_alone(stack: Stack) -> None:
    knowing = [each.name for each in stack.services if "FRACTAL_JWT_SECRET" in each.environment]

    assert knowing == ["api"]


def test_prefect_does_not_know_the_database_of_fractal(stack: Stack) -> None:
    (prefect,) = (service for service in stack.services if service.name == "prefect")

    assert "FRACTAL_DATABASE_URL" not in prefect.environment


def test_what_all_services_are_forked_from_has_no_secret_of_one_of_them(stack: Stack) -> None:
    """Its variables are those that the kernel shows for what it has forked."""
    for service in stack.services:
        assert service.fork_server is not None
        assert service.fork_server.process is not None
        server = psutil.Process(service.fork_server.process.pid)
        shown = {name for each in (server, *server.children()) for name in each.environ()}

        assert shown & set(SECRETS) <= {"PREFECT_API_AUTH_STRING"}


def test_a_process_that_keeps_secrets_is_read_by_nobody_else_of_its_os_user(
    os_user: Account, tmp_path: Path
) -> None:
    text = Path(secrecy.__file__).read_text()
    command = [PYTHON, "-c", f"{text}\nkeep_secrets()\nprint('kept', flush=True)\ninput()"]
    as_user: Any = {"user": os_user.uid, "cwd": "/", "env": {"SECRET": "of the process"}}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **as_user, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"
        reads = ["cat", f"/proc/{process.pid}/environ"]
        other = subprocess.run(reads, **as_user, capture_output=True, check=False)
        process.communicate(b"\n")

    assert b"Permission denied" in other.stderr
    assert b"of the process" not in other.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL runs as another OS user for root only")
def test_a_closed_folder_is_not_opened_for_postgresql(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    with pytest.raises(PostgresError, match=rf"may not enter .*chmod go\+rx {tmp_path}"):
        EmbeddedPostgres(tmp_path / "data" / "postgres").start()

    assert mode(tmp_path) == "0o700"


def test_the_database_takes_connections_of_its_own_os_user_alone(stack: Stack) -> None:
    query = stack.postgres.fractal.query
    assert mode(Path(str(query["host"]), ".s.PGSQL.5432")) == "0o700"


def test_a_data_directory_that_somebody_else_made_is_not_used(
    os_user: Account, open_folder: Path
) -> None:
    open_folder.chmod(0o1777)
    folder = open_folder / "data"
    folder.mkdir()
    os.chown(folder, os_user.uid, os_user.gid)

    with pytest.raises(DataDirError, match="is another user's"):
        make_data_dir(folder)
