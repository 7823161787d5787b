"""The real Fractal client, unchanged, against the API."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi_users.password import PasswordHelper

from fractal_models.tables import Profile, Resource

Client = Callable[..., Awaitable[str]]

PASSWORD = "a good password"


class Server(uvicorn.Server):
    """A server that says when it can be reached."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.port.set_result(self.servers[0].sockets[0].getsockname()[1])


@pytest.fixture(scope="module")
async def server(app: FastAPI) -> AsyncIterator[str]:
    """The URL of the application, served on a free port."""
    server = Server(app)
    serving = asyncio.create_task(server.serve())
    yield f"http://127.0.0.1:{await server.port}"
    server.should_exit = True
    await serving


@pytest.fixture
async def fractal(server: str, new_person: Callable[..., Awaitable[Any]], tmp_path: Path) -> Client:
    """Runs `fractal --batch` as an administrator; its output, or that of a failure."""
    hashed = PasswordHelper().hash(PASSWORD)
    person = await new_person(is_superuser=True, hashed_password=hashed)
    login = ["--user", person.user.email, "--password", PASSWORD, "--fractal-server", server]
    environment = {**os.environ, "FRACTAL_CACHE_PATH": str(tmp_path / "cache")}

    async def run(*arguments: object, batch: bool = True, succeeds: bool = True) -> str:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("fractal")),
            *login,
            *(["--batch"] if batch else []),
            *map(str, arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=tmp_path,
        )
        output, errors = await process.communicate()
        assert (process.returncode == 0) is succeeds, (arguments, output, errors)
        return (output if succeeds else errors).decode().strip()

    return run


async def test_a_job_is_prepared_submitted_and_stopped(fractal: Client, tmp_path: Path) -> None:
    arguments = tmp_path / "args.json"
    arguments.write_text('{"threshold": 3}')

    project = await fractal("project", "new", "by the client")
    dataset = await fractal("project", "add-dataset", project, "images")
    workflow = await fractal("workflow", "new", "analysis", project)
    await fractal("task", "new", "Segment", "--version", "1", "--command-parallel", "true")
    await fractal(
        *("workflow", "add-task", project, workflow, "--task-name", "Segment"),
        *("--args-parallel", arguments),
    )
    job = await fractal("job", "submit", project, workflow, dataset)
    status = await fractal("job", "show", project, job)
    await fractal("job", "stop", project, job)

    assert status == "submitted"
    assert await fractal("job", "show", project, job) == "failed"
    assert await fractal("job", "list", project) == job
    shown = json.loads(await fractal("workflow", "show", project, workflow, batch=False))
    assert shown["task_list"][0]["args_parallel"] == {"threshold": 3}
    await fractal("workflow", "delete", project, workflow)
    await fractal("dataset", "delete", project, dataset)
    await fractal("project", "delete", project)


async def test_users_groups_and_profiles_are_administered(
    fractal: Client, resource: Resource, profile: Profile, tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"resource_type": "local", "name": "by the client"}))

    user = await fractal("user", "register", "new@example.org", "secret", "/data/new")
    group = await fractal("group", "new", "by the client")
    added = await fractal("group", "add-user", group, user, batch=False)
    new_profile = await fractal("profile", "new", resource.id, file)
    await fractal("user", "edit", user, "--new-profile-id", new_profile, batch=False)
    await fractal("user", "edit", user, "--add-project-dir", "/data/more", batch=False)
    shown = await fractal("user", "show", user, batch=False)

    assert user in added
    assert "/data/more" in shown
    assert "by the client" in shown


async def test_a_refusal_is_told_to_the_user(fractal: Client) -> None:
    project = await fractal("project", "new", "twice")

    errors = await fractal("project", "new", "twice", succeeds=False)

    assert project
    assert "You have a project 'twice' already." in errors


async def test_tasks_of_an_installed_package_are_collected(fractal: Client, tmp_path: Path) -> None:
    (tmp_path / "run.py").touch()
    manifest = tmp_path / "manifest.json"
    task = {"name": "Run", "executable_parallel": "run.py"}
    manifest.write_text(json.dumps({"manifest_version": "2", "task_list": [task]}))

    collected = await fractal(
        *("task", "collect-custom", "my package", sys.executable, manifest),
        *("--version", "0.1", "--package-root", tmp_path),
    )

    assert collected.isdigit()
    tasks = json.loads(await fractal("task", "list", batch=False))
    assert "Run" in [task["name"] for task in tasks]
