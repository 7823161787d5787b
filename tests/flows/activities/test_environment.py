"""Environments of task groups: who can use them, and that they are made again as they were."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from flows.activities.environment import PipEnvironment
from flows.activities.site import own_site
from flows.process.transport import CommandError
from fractal_models.tables import Resource, TaskGroupV2
from tests.lab import eventually
from tests.os_user import sleepers

PYTHON = "/usr/bin/python3"


@pytest.fixture
def umask() -> Iterator[None]:
    """The strictest umask that a server can have."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def environment(
    open_folder: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PipEnvironment]:
    """That of a package from a wheel, on this machine, by a server in a container; not yet made."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    folder = open_folder / "tasks" / "1" / "fractal-tasks-probe" / "1.2.0"
    resource = Resource(
        type="local",
        name="machine",
        jobs_local_dir="/j",
        jobs_poll_interval=1,
        tasks_local_dir=str(open_folder / "tasks"),
        tasks_python_config={"default_version": "3.11", "versions": {"3.11": PYTHON}},
    )
    group = TaskGroupV2(
        user_id=1,
        resource_id=1,
        origin="wheel-file",
        pkg_name="fractal-tasks-probe",
        version="1.2.0",
        path=str(folder),
        venv_path=str(folder / "venv"),
        archive_path=str(folder / wheel.name),
    )
    with disable_run_logger():
        yield PipEnvironment(group, resource, own_site())


async def send_wheel(environment: PipEnvironment, wheel: Path) -> None:
    await environment.site.write(str(environment.group.archive_path), wheel.read_bytes())


def compiled_files(environment: PipEnvironment, log: list[str]) -> int:
    """The number of files with bytecode, which the log tells, too."""
    found = list(Path(str(environment.group.venv_path)).rglob("*.pyc"))
    (told,) = (line for line in log if line.startswith("Bytecode compiled"))
    assert re.fullmatch(rf"Bytecode compiled {len(found)} files? in [\d.]+m?s", told)
    assert any(path.name.startswith("process.") for path in found)
    return len(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a task as another user")
@pytest.mark.usefixtures("umask")
async def test_another_user_can_run_its_tasks_and_not_change_them(
    environment: PipEnvironment, wheel: Path
) -> None:
    await send_wheel(environment, wheel)
    log = await environment.make(use_lock_file=False)
    assert compiled_files(environment, log)
    contents = await environment.contents()
    assert contents.manifest is not None
    script = Path(contents.manifest).with_name("process.py")
    python = f"{environment.group.venv_path}/bin/python"
    command = [python, str(script), "--help"]
    await asyncio.to_thread(subprocess.run, command, user="nobody", cwd="/", check=True)
    writable = [
        path
        for path in Path(str(environment.resource.tasks_local_dir)).rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o022
    ]
    assert writable == []


async def test_it_is_made_again_with_the_same_versions(
    environment: PipEnvironment, wheel: Path
) -> None:
    await send_wheel(environment, wheel)
    await environment.make(use_lock_file=False)
    group = environment.group
    group.env_info = await environment.freeze()
    before = await environment.contents()
    await environment.remove()
    assert not Path(str(group.venv_path)).exists()
    Path(str(group.venv_path)).mkdir()  # left by an interruption
    await environment.make_again()
    assert await environment.freeze() == group.env_info
    assert (await environment.contents()).text == before.text


async def test_venv_and_pip_do_where_uv_is_not(environment: PipEnvironment, wheel: Path) -> None:
    environment.site.uv = None
    await send_wheel(environment, wheel)
    log = await environment.make(use_lock_file=False)
    assert any("pip install" in line for line in log)
    assert compiled_files(environment, log)
    assert "fractal-tasks-probe @ file://" in await environment.freeze()


async def test_a_failure_is_told_in_the_words_of_the_command(
    environment: PipEnvironment,
) -> None:
    with pytest.raises(CommandError, match=r"fractal_tasks_probe-1\.2\.0.*whl"):
        await environment.make(use_lock_file=False)


async def test_the_last_version_that_is_removed_takes_the_folder_of_its_package(
    open_folder: Path,
) -> None:
    site = own_site()
    for version in ("1", "2"):
        await site.write(str(open_folder / "package" / version / "wheel"), b"")
    await site.remove(str(open_folder / "package" / "1"))
    assert (open_folder / "package").exists()
    await site.remove(str(open_folder / "package" / "2"))
    assert not (open_folder / "package").exists()
    assert open_folder.exists()


async def test_what_installs_packages_ends_with_the_process_that_listens() -> None:
    code = (
        "import asyncio\n"
        "from prefect.logging import disable_run_logger\n"
        "from flows.activities.site import own_site\n"
        "with disable_run_logger():\n"
        "    asyncio.run(own_site().shell(['sleep 1021']))\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        await eventually(lambda: sleepers(1021), bool)
    finally:
        process.kill()
        await process.wait()
    await eventually(lambda: sleepers(1021), lambda found: not found)
