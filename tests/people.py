"""The application, people who use it, and what they made with it."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from api.app import create_app
from api.auth import login_tokens
from fractal_models.database import saved_id
from fractal_models.groups import add_to_group, default_group
from fractal_models.settings import Settings
from fractal_models.tables import LinkUserProjectV2, Profile, Resource, TaskGroupV2, UserOAuth

_numbers = count(1)


class Person(httpx.AsyncClient):
    """A client that is logged in as its user."""

    user: UserOAuth

    async def ok(self, method: str, url: str, **request: Any) -> Any:
        """The answer's JSON; it must be a success."""
        answer = await self.request(method, url, **request)
        assert answer.is_success, f"{method} {url}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None


@pytest.fixture(scope="module")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="module")
async def anonymous(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is not logged in."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://fractal") as client:
        yield client


@pytest.fixture(scope="module")
async def resource(
    sessions: async_sessionmaker[AsyncSession], tmp_path_factory: pytest.TempPathFactory
) -> Resource:
    """A local resource."""
    folder = tmp_path_factory.mktemp("resource")
    resource = Resource(
        type="local",
        name="here",
        jobs_local_dir=str(folder / "jobs"),
        jobs_poll_interval=0,
        tasks_local_dir=str(folder / "tasks"),
        tasks_python_config={"default_version": "3.11", "versions": {"3.11": sys.executable}},
    )
    async with sessions() as session:
        session.add(resource)
        await session.commit()
    return resource


@pytest.fixture(scope="module")
async def profile(sessions: async_sessionmaker[AsyncSession], resource: Resource) -> Profile:
    profile = Profile(resource_id=saved_id(resource), resource_type="local", name="here for all")
    async with sessions() as session:
        session.add(profile)
        await session.commit()
    return profile


@pytest.fixture(scope="module")
async def new_person(
    app: FastAPI,
    settings: Settings,
    sessions: async_sessionmaker[AsyncSession],
    profile: Profile,
) -> AsyncIterator[Callable[..., Awaitable[Person]]]:
    """Makes a user of the default group, verified and with a profile, and logs them in."""
    people: list[Person] = []

    async def make(**fields: Any) -> Person:
        number = next(_numbers)
        given = {
            "email": f"user{number}@example.org",
            "hashed_password": "not a hash",
            "is_verified": True,
            "profile_id": profile.id,
            "project_dirs": [f"/data/user{number}"],
        }
        user = UserOAuth(**{**given, **fields})
        async with sessions() as session:
            session.add(user)
            await session.flush()
            group = await default_group(session, settings.default_group)
            await add_to_group(session, saved_id(user), saved_id(group))
            await session.commit()
        token = await login_tokens(settings).write_token(user)
        person = Person(
            transport=httpx.ASGITransport(app=app),
            base_url="http://fractal",
            headers={"Authorization": f"Bearer {token}"},
        )
        person.user = user
        people.append(person)
        return person

    yield make
    for person in people:
        await person.aclose()


@pytest.fixture(scope="module")
async def admin(new_person: Callable[..., Awaitable[Person]]) -> Person:
    return await new_person(is_superuser=True)


@pytest.fixture(scope="module")
async def owner(new_person: Callable[..., Awaitable[Person]]) -> Person:
    """A user, who owns what the fixtures below make."""
    return await new_person()


@pytest.fixture
async def project(owner: Person) -> dict[str, Any]:
    return await owner.ok("POST", "/api/v2/project/", json={"name": f"project {next(_numbers)}"})


@pytest.fixture
async def dataset(owner: Person, project: dict[str, Any]) -> dict[str, Any]:
    return await owner.ok(
        "POST", f"/api/v2/project/{project['id']}/dataset/", json={"name": "dataset"}
    )


@pytest.fixture
async def workflow(owner: Person, project: dict[str, Any]) -> dict[str, Any]:
    """A workflow without tasks."""
    return await owner.ok(
        "POST", f"/api/v2/project/{project['id']}/workflow/", json={"name": "workflow"}
    )


@pytest.fixture
def new_task(owner: Person) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Makes a task, a parallel one unless told otherwise; `query` are parameters of the request."""

    async def make(*, query: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        commands = {"command_parallel": "true"} if "command_non_parallel" not in fields else {}
        task = {"name": f"task {next(_numbers)}", "version": "1", **commands, **fields}
        return await owner.ok("POST", "/api/v2/task/", json=task, params=query)

    return make


@pytest.fixture
async def runnable(
    owner: Person,
    workflow: dict[str, Any],
    new_task: Callable[..., Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """A workflow with one parallel task."""
    task = await new_task()
    project_id = workflow["project_id"]
    url = f"/api/v2/project/{project_id}/workflow/{workflow['id']}/"
    await owner.ok("POST", f"{url}wftask/", json=[{"task_id": task["id"]}])
    return await owner.ok("GET", url)


@pytest.fixture
def submit(owner: Person) -> Callable[..., Awaitable[httpx.Response]]:
    """Asks for a job of a workflow on a dataset."""

    async def make(
        workflow: dict[str, Any], dataset: dict[str, Any], **request: Any
    ) -> httpx.Response:
        return await owner.post(
            f"/api/v2/project/{workflow['project_id']}/job/submit/",
            params={"workflow_id": workflow["id"], "dataset_id": dataset["id"]},
            json=request,
        )

    return make


@pytest.fixture
def invite(sessions: async_sessionmaker[AsyncSession]) -> Callable[..., Awaitable[None]]:
    """Makes a user a guest of a project."""

    async def make(
        person: Person, project: dict[str, Any], permissions: str, is_verified: bool = True
    ) -> None:
        async with sessions() as session:
            session.add(
                LinkUserProjectV2(
                    project_id=project["id"],
                    user_id=saved_id(person.user),
                    is_owner=False,
                    is_verified=is_verified,
                    permissions=permissions,
                )
            )
            await session.commit()

    return make


@pytest.fixture
def new_group(
    owner: Person, resource: Resource, session: AsyncSession, tmp_path: Path
) -> Callable[..., Awaitable[TaskGroupV2]]:
    """Makes a group whose environment could be made again, unless told otherwise."""

    async def make(**fields: Any) -> TaskGroupV2:
        given = {
            "user_id": owner.user.id,
            "resource_id": resource.id,
            "origin": "pypi",
            "pkg_name": f"package-{next(_numbers)}",
            "version": "1.0",
            "python_version": "3.11",
            "path": str(tmp_path),
            "venv_path": str(tmp_path / "venv"),
            "env_info": "package==1.0",
        }
        group = TaskGroupV2(**{**given, **fields})
        session.add(group)
        await session.commit()
        return group

    return make
