"""Jobs whose units keep a journal, and the processes that execute them."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from flows.launchers.local import is_running
from flows.process.lock import locked_jobs
from flows.units.job_folder import JobFolder
from fractal_models.database import connection_pool, session_factory
from tests.consistency import Unit, events, examine, task_bodies
from tests.lab import Lab, eventually

_numbers = count(1)


class Journal:
    """The file in which the units of one job write that they began and ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    @property
    def args(self) -> dict[str, Any]:
        """What makes the units of a workflow task write here."""
        return {"journal": str(self.path)}

    def began(self) -> list[Unit]:
        return list(events(self.path, "begin").elements())

    def ended(self) -> list[Unit]:
        return list(events(self.path, "end").elements())

    async def begins(self) -> None:
        """Return when a unit has begun."""
        await eventually(lambda: asyncio.to_thread(self.began), bool)

    async def begins_again(self, units: int) -> None:
        """Return when so many units have begun."""
        await eventually(lambda: asyncio.to_thread(self.began), lambda now: len(now) >= units)

    async def reaches(self, units: int) -> None:
        """Return when so many units have ended."""

        async def ended() -> int:
            return len(self.ended())

        await eventually(ended, lambda now: now >= units)


@pytest.fixture
def journal(stack: Stack) -> Journal:
    folder = stack.data_dir / "journals"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)  # whoever units run as comes to a file by its name
    return Journal(folder / f"{next(_numbers)}.jsonl")


@pytest.fixture(scope="session")
async def journal_lab(lab: Lab) -> Lab:
    """The lab, with the tasks whose units keep a journal."""
    for body in task_bodies("of the tests"):
        task = await lab.ok("POST", "/api/v2/task/", json=body)
        lab.tasks[body["name"]] = task["id"]
    return lab


@pytest.fixture(scope="session")
async def fractal(stack: Stack) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions on the stack's database."""
    engine = connection_pool(make_url(stack.environment["FRACTAL_DATABASE_URL"]))
    yield session_factory(engine)
    await engine.dispose()


async def require_consistent(
    sessions: async_sessionmaker[AsyncSession], job: dict[str, Any], journal: Journal
) -> None:
    """A job is done, and did everything once; its lock becomes free (a reconciler may look on)."""

    async def locked() -> set[int]:
        async with sessions() as session:
            return await locked_jobs(session)

    await eventually(locked, lambda now: job["id"] not in now)
    async with sessions() as session:
        findings = await examine(session, job["id"], journal.path)
    assert findings.faults == []


async def process_of(prefect: PrefectClient, job: dict[str, Any]) -> psutil.Process:
    """The process that executes a job, when there is one."""

    async def find() -> psutil.Process | None:
        flow_run = await prefect.read_flow_run(job["flow_run_id"])
        if not flow_run.state or not flow_run.state.is_running() or not flow_run.infrastructure_pid:
            return None
        try:
            return psutil.Process(int(flow_run.infrastructure_pid))
        except psutil.NoSuchProcess:
            return None

    found: psutil.Process = await eventually(find, bool)
    return found


async def summary_of(prefect: PrefectClient, job: dict[str, Any]) -> str:
    """The summary of a job; it comes a moment after the job's end."""

    async def read() -> list[dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": [job["flow_run_id"]]}}}
        answer = await prefect._client.post("/artifacts/filter", json=body)
        return [each for each in answer.json() if each["key"] == f"job-{job['id']}-summary"]

    (found,) = await eventually(read, bool)
    assert found["type"] == "markdown"
    return str(found["data"])


async def runner_of(job: dict[str, Any]) -> psutil.Process:
    """The unit runner that works for a job, when there is one."""

    async def find() -> psutil.Process | None:
        for batch in JobFolder(Path(job["working_dir"])).batches():
            if is_running(batch) and (holder := (batch / "lock").read_text().split()):
                return psutil.Process(int(holder[0]))
        return None

    found: psutil.Process = await eventually(find, bool)
    return found
