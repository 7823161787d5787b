"""What users bring is run by the user whose jobs run there, never by the one of the REST API."""

import asyncio
import json
import os
import textwrap
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities import packages
from flows.activities.environment import PipEnvironment
from flows.activities.site import account_site, open_site, own_site
from flows.process.accounts import Account
from flows.process.transport import CommandError, LocalTransport, TransportError
from fractal_models.database import saved_id
from fractal_models.tables import Profile, Resource, TaskGroupV2
from tests.os_user import PYTHON, sleepers

CUSTOM = "/api/v2/task/collect/custom/"
TASK = {"name": "a task", "executable_parallel": "task.py"}


def custom(python: object, **changes: Any) -> dict[str, Any]:
    """A request to collect the tasks of a package of this interpreter."""
    manifest = {"manifest_version": "2", "has_args_schemas": False, "task_list": [TASK]}
    return {
        "manifest": manifest,
        "python_interpreter": str(python),
        "label": "tasks",
        "package_name": "my-tasks",
        "version": "1",
        **changes,
    }


@pytest.fixture
def environment(open_folder: Path) -> Path:
    """An environment with a package of tasks, made by somebody who lays traps."""
    packages = open_folder / "lib" / "python3.11" / "site-packages"
    (packages / "my_tasks").mkdir(parents=True)
    (packages / "my_tasks" / "__init__.py").touch()
    (packages / "my_tasks" / "task.py").touch()
    (packages / "trap.pth").write_text(f"import os; open({str(open_folder / 'seen')!r}, 'w')\n")
    (open_folder / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    return open_folder


def interpreter(environment: Path, program: str) -> Path:
    """An interpreter of an environment that is anything but that."""
    path = environment / "bin" / "python"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(program)}\n")
    path.chmod(0o755)
    return path


async def of_account(
    session: AsyncSession, resource: Resource, account: Account, **fields: Any
) -> Profile:
    """A profile that names an OS user of this machine."""
    given = {"resource_type": resource.type, "name": f"as {account.name} on {resource.name}"}
    profile = Profile(resource_id=saved_id(resource), username=account.name, **given, **fields)
    session.add(profile)
    await session.commit()
    return profile


async def test_an_interpreter_is_not_run_by_the_user_of_the_rest_api(
    owner: Any, environment: Path
) -> None:
    python = interpreter(environment, f"touch {environment}/seen; echo {environment}")

    [task] = await owner.ok("POST", CUSTOM, json=custom(python))

    packages = environment / "lib" / "python3.11" / "site-packages"
    assert task["command_parallel"] == f"{python} {packages}/my_tasks/task.py"
    assert not (environment / "seen").exists()


async def test_a_package_that_is_not_found_by_its_files_is_asked_for_by_its_folder(
    owner: Any, environment: Path
) -> None:
    python = interpreter(environment, f"touch {environment}/seen; echo {environment}")

    answer = await owner.post(CUSTOM, json=custom(python, package_name="others", version="0"))

    assert answer.status_code == 422
    assert "give package_root" in answer.json()["detail"]
    assert not (environment / "seen").exists()


async def test_a_file_that_would_be_waited_for_for_ever_is_passed_by(
    owner: Any, environment: Path
) -> None:
    os.mkfifo(environment / "lib" / "python3.11" / "site-packages" / "a.pth")
    python = interpreter(environment, "exit 1")

    await owner.ok("POST", CUSTOM, json=custom(python, version="2"))


async def test_a_package_that_is_used_from_its_project_is_found(
    owner: Any, environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("__init__.py", "task.py"):
        (tmp_path / "mine" / name).touch()
    folder = environment / "lib" / "python3.11" / "site-packages"
    (folder / "_mine.pth").write_text(f"{tmp_path}\n")
    python = interpreter(environment, "exit 1")

    request = custom(python, package_name="mine", version="3")
    [task] = await owner.ok("POST", CUSTOM, json=request)

    assert task["command_parallel"] == f"{python} {tmp_path}/mine/task.py"


@pytest.fixture
async def user_of_account(
    new_person: Callable[..., Awaitable[Any]],
    session: AsyncSession,
    os_user: Account,
    open_folder: Path,
) -> Any:
    """A person whose jobs run as another OS user."""
    (open_folder / "tasks").mkdir()
    resource = Resource(
        type="local",
        name=f"as {os_user.name} in {open_folder.name}",
        jobs_local_dir=str(open_folder / "jobs"),
        jobs_poll_interval=0,
        tasks_local_dir=str(open_folder / "tasks"),
        tasks_python_config={"default_version": "3", "versions": {"3": PYTHON}},
    )
    session.add(resource)
    await session.flush()
    profile = await of_account(session, resource, os_user)
    return await new_person(profile_id=profile.id)


async def test_an_interpreter_is_run_by_the_os_user_of_the_profile_without_our_variables(
    user_of_account: Any, environment: Path, os_user: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRACTAL_JWT_SECRET", "of the tests")
    told = environment / "told"
    told.touch()
    told.chmod(0o666)
    folder = environment / "lib" / "python3.11" / "site-packages" / "my_tasks"
    python = interpreter(environment, f"{{ id -un; env; }} > {told}; echo {folder}")

    [task] = await user_of_account.ok("POST", CUSTOM, json=custom(python))

    assert task["command_parallel"] == f"{python} {folder}/task.py"
    user, *variables = told.read_text().splitlines()
    assert user == os_user.name
    assert not [each for each in variables if each.startswith(("FRACTAL_", "PREFECT_"))]


async def test_an_interpreter_that_does_not_answer_is_killed(
    user_of_account: Any, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "_PATIENCE_SECONDS", 0.5)
    python = interpreter(environment, "trap '' TERM; sleep 1017 & wait; wait")

    answer = await user_of_account.post(CUSTOM, json=custom(python))

    assert answer.status_code == 422
    assert "did not end within 0.5 s" in answer.json()["detail"]
    assert not await sleepers(1017)


async def test_who_does_not_reach_the_resource_any_more_is_not_run_as_us(
    user_of_account: Any, owner: Any, session: AsyncSession, open_folder: Path
) -> None:
    profile = await session.get_one(Profile, user_of_account.user.profile_id)
    group = TaskGroupV2(
        user_id=owner.user.id,  # whose profile is for another resource
        resource_id=profile.resource_id,
        origin="other",
        pkg_name="a package",
    )

    with pytest.raises(Exception, match="has no profile for resource"):
        async with open_site(session, group):
            pass


def wheel_with_a_trap(folder: Path) -> Path:
    """A wheel whose `.pth` file writes down who runs it."""
    code = f"import os; open({str(folder)!r} + f'/run-by-{{os.getuid()}}', 'a').close()"
    path = folder / "trap_tasks-1.0-py3-none-any.whl"
    info = "trap_tasks-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trap.pth", f"{code}\n")
        archive.writestr("trap_tasks/__init__.py", "")
        archive.writestr("trap_tasks/__FRACTAL_MANIFEST__.json", json.dumps({}))
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: trap-tasks\nVersion: 1.0"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    return path


async def test_what_a_wheel_has_run_is_run_by_the_os_user_of_the_profile(
    os_user: Account, open_folder: Path
) -> None:
    open_folder.chmod(0o777)
    wheel = wheel_with_a_trap(open_folder)
    tasks = open_folder / "tasks" / "1"
    site = await account_site(os_user.name, PYTHON, tasks)
    folder = tasks / "trap-tasks" / "1.0"
    resource = Resource(
        type="local",
        name="here",
        jobs_local_dir="/j",
        jobs_poll_interval=0,
        tasks_local_dir=str(open_folder / "tasks"),
        tasks_python_config={
            "default_version": "3",
            "versions": {"3": PYTHON},
            "pip_cache_dir": "/root/cache",
        },
    )
    group = TaskGroupV2(
        user_id=1,
        resource_id=1,
        origin="wheel-file",
        pkg_name="trap-tasks",
        version="1.0",
        path=str(folder),
        venv_path=str(folder / "venv"),
        archive_path=str(folder / wheel.name),
    )
    made = PipEnvironment(group, resource, site)

    await site.write(str(group.archive_path), wheel.read_bytes())
    with disable_run_logger():
        await made.make(use_lock_file=False)
    group.env_info = await made.freeze()
    contents = await made.contents()

    assert contents.manifest is not None
    assert [path.name for path in open_folder.glob("run-by-*")] == [f"run-by-{os_user.uid}"]
    assert {path.lstat().st_uid for path in tasks.rglob("*")} == {os_user.uid}
    await made.site.remove(str(folder))
    assert not folder.exists()


async def test_what_installs_packages_sees_none_of_our_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FRACTAL_DATABASE_URL", "of the tests")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "of the tests")
    with disable_run_logger():
        lines = await own_site().shell(["env"])

    assert any(line.startswith("PATH=") for line in lines)
    assert not [line for line in lines if "of the tests" in line]


async def test_another_os_user_is_told_how_the_package_index_is_reached_but_no_password(
    os_user: Account, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:password@index/simple")
    site = await account_site(os_user.name, PYTHON, open_folder / "tasks")
    with disable_run_logger():
        lines = await site.shell(["env"])

    assert "https_proxy=http://proxy:3128" in lines
    assert not [line for line in lines if "password" in line]


async def test_what_installs_packages_ends_when_it_is_cancelled(
    os_user: Account, open_folder: Path
) -> None:
    site = await account_site(os_user.name, PYTHON, open_folder / "tasks")
    with disable_run_logger():
        working = asyncio.create_task(site.shell(["sleep 1018"]))
        while not await sleepers(1018):
            await asyncio.sleep(0.05)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert not await sleepers(1018)


async def test_an_os_user_who_is_not_there_is_named() -> None:
    with pytest.raises(Exception, match="There is no OS user 'nobody-of-that-name'"):
        await account_site("nobody-of-that-name", PYTHON, Path("/tmp/x"))


async def test_a_command_of_another_os_user_tells_how_it_failed(os_user: Account) -> None:
    transport = LocalTransport(os_user.name, PYTHON)
    ended = await transport.run(("sh", "-c", "cat; exit 3"), b"read")
    assert (ended.exit_code, ended.stdout) == (3, b"read")
    with pytest.raises(CommandError):
        ended.check()
    with pytest.raises(TransportError, match="did not end within"):
        await transport.run(("sleep", "1019"), seconds=0.3)
    assert not await sleepers(1019)
