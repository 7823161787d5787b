"""A person with a package of small tasks, on the embedded stack."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from deployments.stack import Stack

PACKAGES = Path(__file__).parent / "packages"
PATIENCE_SECONDS = 100
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 0.3

_numbers = count(1)


class Lab:
    """The admin's REST client, a project, and what the tests do with them again and again."""

    def __init__(self, client: httpx.AsyncClient, zarr_dir: Path) -> None:
        self.client = client
        self.zarr_dir = zarr_dir
        self.project_id = 0
        self.tasks: dict[str, int] = {}

    @property
    def base(self) -> str:
        return f"/api/v2/project/{self.project_id}"

    async def ok(self, method: str, url: str, **request: Any) -> Any:
        """The answer's JSON; it must be a success, if not at once.

        While Prefect is busy, 503 says that nothing was changed, and that one may ask again.
        """
        answer = await eventually(
            lambda: self.client.request(method, url, **request),
            lambda answer: answer.status_code != httpx.codes.SERVICE_UNAVAILABLE,
        )
        assert answer.is_success, f"{method} {url}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def dataset(self, *names: str, **fields: Any) -> dict[str, Any]:
        """A dataset with images of these names, each with its name as attribute `well`."""
        zarr_dir = f"{self.zarr_dir}/{next(_numbers)}"
        images = [
            {"zarr_url": f"{zarr_dir}/{name}", "attributes": {"well": name}, **fields}
            for name in names
        ]
        body = {"name": "images", "zarr_dir": zarr_dir, "images": images}
        return await self.ok("POST", f"{self.base}/dataset/import/", json=body)

    async def workflow(self, *steps: str | tuple[str, dict[str, Any]]) -> dict[str, Any]:
        """A workflow of tasks by name; with fields of the workflow task, where given."""
        workflow = await self.ok(
            "POST", f"{self.base}/workflow/", json={"name": f"workflow {next(_numbers)}"}
        )
        named = [(step, {}) if isinstance(step, str) else step for step in steps]
        body = [{"task_id": self.tasks[name], **fields} for name, fields in named]
        url = f"{self.base}/workflow/{workflow['id']}/"
        await self.ok("POST", f"{url}wftask/", json=body)
        return await self.ok("GET", url)

    async def submit(
        self, workflow: dict[str, Any], dataset: dict[str, Any], **request: Any
    ) -> dict[str, Any]:
        """A job when it has its flow run: who submits it does not wait for a busy Prefect."""
        job = await self.ask_for_job(workflow, dataset, **request)
        return await eventually(lambda: self.job(job), lambda now: now["flow_run_id"])

    async def ask_for_job(
        self, workflow: dict[str, Any], dataset: dict[str, Any], **request: Any
    ) -> dict[str, Any]:
        """A job as it is when it has just been submitted."""
        return await self.ok(
            "POST",
            f"{self.base}/job/submit/",
            params={"workflow_id": workflow["id"], "dataset_id": dataset["id"]},
            json=request,
        )

    async def submit_process(self, **args: Any) -> dict[str, Any]:
        """A job of one unit of the task `Process`, with these arguments."""
        workflow = await self.workflow(("Process", {"args_parallel": args}))
        return await self.submit(workflow, await self.dataset("A"))

    async def job(self, job: dict[str, Any], **query: Any) -> dict[str, Any]:
        """The job as it is now."""
        return await self.ok("GET", f"{self.base}/job/{job['id']}/", params=query)

    async def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job when it has ended."""
        return await eventually(lambda: self.job(job), lambda now: now["status"] != "submitted")

    async def run(
        self, workflow: dict[str, Any], dataset: dict[str, Any], **request: Any
    ) -> dict[str, Any]:
        """The ended job of a workflow on a dataset."""
        return await self.ended(await self.submit(workflow, dataset, **request))

    async def images(self, dataset: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The images of a dataset by name."""
        export = await self.ok("GET", f"{self.base}/dataset/{dataset['id']}/export/")
        return {Path(image["zarr_url"]).name: image for image in export["images"]}

    async def history(
        self, workflow: dict[str, Any], dataset: dict[str, Any], order: int = 0
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The latest run of a workflow task on a dataset, and its units."""
        query = {
            "dataset_id": dataset["id"],
            "workflowtask_id": workflow["task_list"][order]["id"],
        }
        runs = await self.ok("GET", f"{self.base}/status/run/", params=query)
        url = f"{self.base}/status/run/{runs[-1]['id']}/units/"
        units = await self.ok("GET", url, params=query)
        return runs[-1], units["items"]


async def eventually(read: Callable[[], Awaitable[Any]], good: Callable[[Any], object]) -> Any:
    """What `read` gives, as soon as it is good; who waits long looks less often."""
    pause, value = SHORTEST_PAUSE, None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not good(value := await read()):
                await asyncio.sleep(pause)
                pause = min(1.2 * pause, LONGEST_PAUSE)
    except TimeoutError as error:
        raise TimeoutError(f"Waited in vain for {PATIENCE_SECONDS} s. At last: {value}") from error
    return value


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `fractal-tasks-probe`."""
    return built_wheel(PACKAGES / "fractal_tasks_probe", tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def newer_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `fractal-tasks-probe` in a version that the lab does not have."""
    folder = tmp_path_factory.mktemp("newer")
    project = shutil.copytree(PACKAGES / "fractal_tasks_probe", folder / "project")
    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"1.2.0"', '"1.3.0"'))
    return built_wheel(project, folder)


def built_wheel(project: Path, target: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=project,
        check=True,
        capture_output=True,
    )
    return next(target.glob("*.whl"))


class Server(Protocol):
    """A running server of the REST API: a stack, or the reference."""

    @property
    def api_url(self) -> str: ...


@asynccontextmanager
async def logged_in(server: Server, email: str, password: str) -> AsyncIterator[httpx.AsyncClient]:
    """A user of the REST API."""
    async with httpx.AsyncClient(base_url=server.api_url, timeout=30) as client:
        credentials = {"username": email, "password": password}
        login = await client.post("/auth/token/login/", data=credentials)
        client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        yield client


@pytest.fixture(scope="session")
async def lab(stack: Stack, wheel: Path) -> AsyncIterator[Lab]:
    """The lab, with the tasks of `fractal-tasks-probe` collected from its wheel."""
    async with logged_in(stack, stack.initialised.admin_email, "of the tests") as client:
        lab = Lab(client, Path(stack.environment["FRACTAL_DATA_DIR"], "projects"))
        lab.project_id = (await lab.ok("POST", "/api/v2/project/", json={"name": "lab"}))["id"]
        activity = await lab.ok(
            "POST",
            "/api/v2/task/collect/pip/",
            files={"file": (wheel.name, wheel.read_bytes())},
        )
        group = await collected(lab, activity)
        lab.tasks = {task["name"]: task["id"] for task in group["task_list"]}
        yield lab


async def ended_activity(lab: Lab, activity: dict[str, Any]) -> dict[str, Any]:
    """An activity of a task group, when it has ended."""
    url = f"/api/v2/task-group/activity/{activity['id']}/"
    return await eventually(
        lambda: lab.ok("GET", url), lambda now: now["status"] not in ("pending", "ongoing")
    )


async def collected(lab: Lab, activity: dict[str, Any]) -> dict[str, Any]:
    """The task group of a collection, when that has ended well."""
    ended = await ended_activity(lab, activity)
    assert ended["status"] == "OK", ended["log"]
    return await lab.ok("GET", f"/api/v2/task-group/{ended['taskgroupv2_id']}/")


@pytest.fixture(scope="session")
async def prefect(stack: Stack) -> AsyncIterator[PrefectClient]:
    """The Prefect API of the stack."""
    client = PrefectClient(f"{stack.prefect_url}/api", auth_string=stack.prefect_auth)
    async with client:
        yield client


@pytest.fixture(scope="session")
def flow_run_id() -> Callable[[dict[str, Any]], UUID]:
    """The flow run of a job."""
    return lambda job: UUID(job["flow_run_id"])


@pytest.fixture
def gate(lab: Lab) -> Iterator[Path]:
    """A file: while it is not there, units that were told to wait `until` it is run on."""
    lab.zarr_dir.mkdir(exist_ok=True)
    gate = lab.zarr_dir / f"gate-{next(_numbers)}"
    yield gate
    gate.touch()


@pytest.fixture
async def bob(stack: Stack, lab: Lab) -> AsyncIterator[Lab]:
    """Another user, with a project of his own."""
    email = f"bob{next(_numbers)}@example.org"
    account = {"email": email, "password": "secret"}
    more = {"profile_id": 1, "project_dirs": [str(lab.zarr_dir)]}
    made = await lab.ok("POST", "/auth/register/", json=account | more)
    await lab.ok("PATCH", f"/auth/users/{made['id']}/", json={"is_verified": True})
    async with logged_in(stack, **account) as client:
        bob = Lab(client, lab.zarr_dir)
        bob.tasks = lab.tasks
        bob.project_id = (await bob.ok("POST", "/api/v2/project/", json={"name": "of bob"}))["id"]
        yield bob
