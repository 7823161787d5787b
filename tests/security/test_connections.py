"""No connection to the database is held while something else is waited for.

Whatever an endpoint waits for (Prefect, programs, other machines, files, passwords) goes through a
few functions: these are watched, with everything else as it is. Then there are neighbours who do
not answer, and a pool of three connections.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio.to_thread
import asyncssh
import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from prefect.client.orchestration import PrefectClient
from pydantic import SecretStr
from sqlmodel.ext.asyncio.session import AsyncSession

import api.services
import flows.launchers.choice
from api.app import create_app
from api.routes import ROUTERS
from api.services import _engine, _spared_engine
from deployments.stack import Stack
from flows.engine.client import Engine, open_engine
from flows.engine.publication import publish_resource, withdraw_resource
from flows.units.job_folder import JOB_LOG
from flows.watchers.unattended import UnattendedJobs
from fractal_models.database import connection_pool, saved_id, session_factory
from fractal_models.settings import Settings
from fractal_models.tables import Profile, Resource, TaskGroupV2
from tests.people import Person

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def only_requests() -> Iterator[None]:
    """The application does nothing by itself: that would hold connections beside the requests."""

    async def look(_: UnattendedJobs) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnattendedJobs, "look", look)
        yield


@pytest.fixture(scope="module")
def settings(settings: Settings, stack: Stack) -> Settings:
    """With a Prefect that answers."""
    return settings.model_copy(
        update={
            "prefect_api_url": stack.environment["PREFECT_API_URL"],
            "prefect_auth_string": SecretStr(stack.prefect_auth),
        }
    )


@pytest.fixture(scope="module")
async def published(settings: Settings, resource: Resource) -> AsyncIterator[None]:
    """Prefect knows the resource, but no worker runs its jobs."""
    async with open_engine(settings) as engine:
        await publish_resource(engine, resource)
        yield
        await withdraw_resource(engine, resource.name)


@pytest.fixture
async def with_pixi(resource: Resource, session: AsyncSession) -> None:
    row = await session.get_one(Resource, resource.id)
    row.tasks_pixi_config = {"versions": {"1": "/pixi/1"}, "default_version": "1"}
    await session.commit()


@dataclass
class Waits:
    """What was waited for, each with the number of connections that were held meanwhile."""

    pool: Any
    seen: list[tuple[str, int]]

    def note(self, what: str) -> None:
        self.seen.append((what, self.pool.checkedout()))


@pytest.fixture
def waits(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Waits:
    waits = Waits(app.state.services.sessions.kw["bind"].pool, [])
    connect = asyncssh.connect
    asking, execute = Engine.asking, asyncio.create_subprocess_exec
    in_executor = asyncio.BaseEventLoop.run_in_executor
    in_thread = anyio.to_thread.run_sync

    @asynccontextmanager
    async def asking_watched(engine: Engine) -> AsyncIterator[PrefectClient]:
        waits.note("Prefect")
        async with asking(engine) as client:
            yield client

    async def executing(*command: Any, **options: Any) -> Any:
        waits.note(f"program {command[0]}")
        return await execute(*command, **options)

    def beside(self: Any, executor: Any, function: Any, *arguments: Any) -> Any:
        if function is not socket.getaddrinfo:  # of a new connection to the database itself
            waits.note(f"thread {function}")
        return in_executor(self, executor, function, *arguments)

    async def in_thread_of_anyio(function: Any, *arguments: Any, **options: Any) -> Any:
        waits.note(f"thread {function}")
        return await in_thread(function, *arguments, **options)

    def connecting(*address: Any, **options: Any) -> Any:
        waits.note("SSH")
        return connect(*address, **options)

    monkeypatch.setattr(asyncssh, "connect", connecting)
    monkeypatch.setattr(Engine, "asking", asking_watched)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", executing)
    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", beside)
    monkeypatch.setattr(anyio.to_thread, "run_sync", in_thread_of_anyio)
    return waits


@dataclass
class Scene:
    """Who asks, and what there is to ask for."""

    owner: Person
    admin: Person
    base: str
    ids: dict[str, int]
    new_group: Callable[..., Awaitable[TaskGroupV2]]
    folder: Path

    async def submit(self) -> dict[str, Any]:
        """A job on a dataset of its own."""
        folder = f"{self.owner.user.project_dirs[0]}/x"
        body = {"name": "another", "zarr_dir": folder, "images": []}
        dataset = await self.owner.ok("POST", f"{self.base}/dataset/import/", json=body)
        both = {"workflow_id": self.ids["workflow_id"], "dataset_id": dataset["id"]}
        job = await self.owner.ok("POST", f"{self.base}/job/submit/", params=both, json={})
        return dict(job)

    async def schedule(self) -> str:
        """The URL of a schedule."""
        body = {**self.ids, "when": {"cron": "0 0 * * *"}, "active": False}
        made = await self.owner.ok("POST", f"{self.base}/schedule/", json=body)
        return f"{self.base}/schedule/{made['id']}/"

    async def resource(self) -> tuple[str, dict[str, Any]]:
        """The URL of a resource, and what it was made of."""
        body = {
            "type": "local",
            "name": f"of {uuid4().hex}",
            "jobs_local_dir": "/data/jobs",
            "jobs_runner_config": {},
            "tasks_pixi_config": {},
            "tasks_local_dir": "/data/tasks",
            "tasks_python_config": {"default_version": "3.11", "versions": {"3.11": "/python"}},
        }
        made = await self.admin.ok("POST", "/admin/v2/resource/", json=body)
        return f"/admin/v2/resource/{made['id']}/", body

    async def group(self, **fields: Any) -> str:
        """The id of a task group with an archive, that is inactive unless told otherwise."""
        archive = self.folder / f"{uuid4().hex}.whl"
        archive.touch()
        given = {"origin": "wheel-file", "archive_path": str(archive), "active": False, **fields}
        return str((await self.new_group(**given)).id)


@pytest.fixture
async def scene(
    published: None,
    owner: Person,
    admin: Person,
    dataset: dict[str, Any],
    runnable: dict[str, Any],
    new_group: Callable[..., Awaitable[TaskGroupV2]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    for limit in ("_SECONDS_FOR_PREFECT", "_SECONDS_IF_SPARED"):
        monkeypatch.setattr(api.services, limit, 60.0)  # the machine may be busy
    ids = {"workflow_id": runnable["id"], "dataset_id": dataset["id"]}
    base = f"/api/v2/project/{runnable['project_id']}"
    return Scene(owner, admin, base, ids, new_group, tmp_path)


async def jobs_are_paused_continued_and_stopped(scene: Scene) -> None:
    url = f"{scene.base}/job/{(await scene.submit())['id']}"
    await scene.owner.ok("POST", f"{url}/pause/")
    await scene.owner.ok("POST", f"{url}/continue/")
    await scene.owner.ok("GET", f"{url}/stop/")


async def administrators_end_jobs(scene: Scene) -> None:
    stopped, failed = await scene.submit(), await scene.submit()
    await scene.admin.ok("GET", f"/admin/v2/job/{stopped['id']}/stop/")
    url = f"/admin/v2/job/{failed['id']}/"
    await scene.admin.ok("PATCH", url, json={"status": "failed"})


async def jobs_are_looked_at(scene: Scene) -> None:
    job = await scene.submit()
    folder = Path(job["working_dir"])
    folder.mkdir(parents=True)
    (folder / JOB_LOG).write_text("so far")
    for url in (f"{scene.base}/job/{job['id']}/", f"/admin/v2/job/{job['id']}/"):
        person = scene.admin if url.startswith("/admin") else scene.owner
        told = await person.ok("GET", f"{url}?show_tmp_logs=true")
        assert told["log"].startswith("so far")
        assert (await person.get(f"{url}download/")).is_success


async def schedules_are_made_changed_and_deleted(scene: Scene) -> None:
    url = await scene.schedule()
    await scene.owner.ok("GET", f"{scene.base}/schedule/")
    await scene.owner.ok("GET", url)
    await scene.owner.ok("PATCH", url, json={"when": {"cron": "0 1 * * *"}, "active": True})
    await scene.owner.ok("PATCH", url, json={"active": False})
    await scene.owner.ok("DELETE", url)


async def resources_are_made_changed_and_deleted(scene: Scene) -> None:
    url, body = await scene.resource()
    await scene.admin.ok("PUT", url, json={**body, "prevent_new_submissions": True})
    await scene.admin.ok("DELETE", url)


async def packages_are_collected(scene: Scene) -> None:
    url = "/api/v2/task/collect"
    wheel = {"file": (f"some_{uuid4().hex}-1.0-py3-none-any.whl", b"x" * MIB)}
    await scene.owner.ok("POST", f"{url}/pip/", files=wheel)
    archive = {"file": (f"some_{uuid4().hex}-1.0.tar.gz", b"x" * MIB)}
    await scene.owner.ok("POST", f"{url}/pixi/", files=archive)
    nothing = {"package": f"nothing-{uuid4().hex}"}
    assert (await scene.owner.post(f"{url}/pip/", data=nothing)).status_code == 422


async def task_groups_are_changed(scene: Scene) -> None:
    for area, person in (("/api", scene.owner), ("/admin", scene.admin)):
        url = f"{area}/v2/task-group"
        await person.ok("POST", f"{url}/{await scene.group()}/reactivate/")
        await person.ok("POST", f"{url}/{await scene.group(active=True)}/deactivate/")
        await person.ok("POST", f"{url}/{await scene.group()}/delete/")
    await scene.admin.ok("POST", f"{url}/{await scene.group()}/reset/pip/", json={})
    pixi = await scene.group(origin="pixi", pixi_version="1")
    await scene.admin.ok("POST", f"{url}/{pixi}/reset/pixi/", json={})


async def passwords_are_set_and_used(scene: Scene) -> None:
    email = f"{uuid4().hex}@example.org"
    body = {"email": email, "password": "first", "project_dirs": ["/data"]}
    made = await scene.admin.ok("POST", "/auth/register/", json=body)
    new = {"password": "second"}
    await scene.admin.ok("PATCH", f"/auth/users/{made['id']}/", json=new)
    form = {"username": email, **new}
    await scene.owner.ok("POST", "/auth/token/login/", data=form)


WAITING = [
    jobs_are_paused_continued_and_stopped,
    administrators_end_jobs,
    jobs_are_looked_at,
    schedules_are_made_changed_and_deleted,
    resources_are_made_changed_and_deleted,
    packages_are_collected,
    task_groups_are_changed,
    passwords_are_set_and_used,
]


@pytest.mark.usefixtures("with_pixi")
@pytest.mark.parametrize("ask", WAITING, ids=lambda ask: ask.__name__)
async def test_nothing_is_held_while_something_else_is_waited_for(
    ask: Callable[[Scene], Awaitable[None]], scene: Scene, waits: Waits
) -> None:
    await ask(scene)
    assert waits.seen
    assert [(what, held) for what, held in waits.seen if held] == []


def asks_prefect(dependant: Dependant) -> bool:
    asks = dependant.call in (_engine, _spared_engine)
    return asks or any(map(asks_prefect, dependant.dependencies))


def test_all_endpoints_that_ask_prefect_are_among_these() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    asking = {
        route.name
        for route in routes
        if isinstance(route, APIRoute) and asks_prefect(route.dependant)
    }
    jobs = {"submit_job", "pause_job", "continue_job", "stop_job", "stop_any_job", "end_any_job"}
    schedules = {f"{verb}_schedule" for verb in ("create", "read", "update", "delete")}
    resources = {f"{verb}_resource" for verb in ("create", "replace", "delete")}
    collections = {"collect_tasks_pip", "collect_tasks_pixi"}
    groups = {
        f"{verb}_{which}task_group"
        for verb in ("deactivate", "reactivate", "delete")
        for which in ("", "any_")
    } | {"reset_task_group_pip", "reset_task_group_pixi"}
    assert asking == jobs | schedules | resources | collections | groups | {"list_schedules"}


# --- neighbours who do not answer --------------------------------------------------------------

MANY, PATIENCE_SECONDS = 8, 8.0


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """Host and port of a server that takes connections and says nothing."""

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1")
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture
async def crowded(settings: Settings, silent: str) -> AsyncIterator[FastAPI]:
    """The API with three connections, and a Prefect that does not answer."""
    app = create_app(settings.model_copy(update={"prefect_api_url": f"http://{silent}/api"}))
    engine = connection_pool(settings.async_database_url, connections=3)
    async with app.router.lifespan_context(app):
        app.state.services = replace(app.state.services, sessions=session_factory(engine))
        yield app
    await engine.dispose()


@pytest.fixture
async def on_a_silent_cluster(
    session: AsyncSession,
    new_person: Callable[..., Awaitable[Person]],
    settings: Settings,
    silent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Person:
    """A user of a cluster that takes connections by SSH, and says nothing."""
    key, known_hosts, name = tmp_path / "key", tmp_path / "known_hosts", uuid4().hex
    known_hosts.touch()
    there = settings.model_copy(update={"ssh_known_hosts": known_hosts})
    monkeypatch.setattr(flows.launchers.choice, "get_settings", lambda: there)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(key)
    cluster = Resource(
        type="slurm_ssh",
        name=name,
        host=silent,
        jobs_local_dir="/data",
        tasks_local_dir="/data",
        jobs_slurm_python_worker="/python",
        jobs_poll_interval=1,
    )
    session.add(cluster)
    await session.flush()
    profile = Profile(
        resource_id=saved_id(cluster),
        resource_type="slurm_ssh",
        name=name,
        username="nobody",
        ssh_key_path=str(key),
    )
    session.add(profile)
    await session.commit()
    return await new_person(profile_id=profile.id)


def at(app: FastAPI, person: Person) -> httpx.AsyncClient:
    """The same person at another application."""
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://fractal", headers=person.headers)


@pytest.mark.parametrize("neighbour", ["Prefect", "a cluster", "a package index", "a sender"])
async def test_others_are_served_while_a_neighbour_does_not_answer(
    neighbour: str,
    crowded: FastAPI,
    scene: Scene,
    silent: str,
    on_a_silent_cluster: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await scene.schedule()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://{silent}/simple")

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(PATIENCE_SECONDS)

    async with at(crowded, scene.owner) as one, at(crowded, on_a_silent_cluster) as other:
        ask: dict[str, Callable[[], Awaitable[Any]]] = {
            "Prefect": lambda: one.get(f"{scene.base}/schedule/"),
            "a cluster": lambda: other.get("/api/v2/job/squeue/"),
            "a package index": lambda: one.post(
                "/api/v2/task/collect/pip/", data={"package": "anything"}
            ),
            "a sender": lambda: one.post("/api/v2/project/", content=slowly()),
        }
        waiting = [asyncio.ensure_future(ask[neighbour]()) for _ in range(MANY)]
        await asyncio.sleep(1)  # until all of them have come so far
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            for _ in range(MANY):
                assert (await one.get("/auth/current-user/")).status_code == 200
        assert [each.result().text for each in waiting if each.done()] == []
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_without_a_connection_the_answer_is_503(crowded: FastAPI, scene: Scene) -> None:
    sessions = crowded.state.services.sessions
    pool = sessions.kw["bind"].sync_engine.pool
    pool._timeout = 0.2
    async with AsyncExitStack() as stack, at(crowded, scene.owner) as client:
        for _ in range(3):
            session = await stack.enter_async_context(sessions())
            await session.connection()
        read = await client.get("/auth/current-user/")
        write = await client.post("/api/v2/project/", json={"name": "project"})
    assert (read.status_code, write.status_code) == (503, 503)
    assert "database" in read.json()["detail"]
