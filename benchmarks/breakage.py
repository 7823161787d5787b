"""Ways to break a running stack, by the alert that is to tell of each."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from deployments.stack import Stack
from tests.cluster import running_cluster
from tests.lab import Lab, eventually
from tests.slurm_site import lab_at, resource_body


@dataclass(frozen=True)
class Ground:
    """A stack, an administrator at work on it, and its database.

    What is on `left` is undone when the alert has ended.
    """

    stack: Stack
    lab: Lab
    left: AsyncExitStack = field(default_factory=AsyncExitStack)

    @asynccontextmanager
    async def sql(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        url = self.stack.postgres.fractal.set(drivername="postgresql")
        connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def without(self, part: str) -> AsyncIterator[None]:
        """While a part is killed, until it is started again."""
        await asyncio.to_thread(self.stack.parts[part].kill)
        try:
            yield
        finally:
            await asyncio.to_thread(self.stack.start, part)

    async def job(self, command: str, images: int, wait: bool = True) -> dict[str, Any]:
        """A job of as many units of a command."""
        name = f"task {secrets.token_hex(4)}"
        body = {"name": name, "version": "1", "type": "parallel", "command_parallel": command}
        self.lab.tasks[name] = (await self.lab.ok("POST", "/api/v2/task/", json=body))["id"]
        dataset = await self.lab.dataset(*(f"image-{number}" for number in range(images)))
        job = await self.lab.ask_for_job(await self.lab.workflow(name), dataset)
        return await self.lab.ended(job) if wait else job


Break = Callable[[Ground], AbstractAsyncContextManager[None]]
BREAKS: dict[str, Break] = {
    "FractalApiDown": lambda ground: ground.without("api"),
    "FractalDatabaseDown": lambda ground: ground.without("postgres"),
    "FractalPrefectDown": lambda ground: ground.without("prefect"),
    "FractalWorkerSilent": lambda ground: ground.without("worker"),
}


def breaks(alert: str) -> Callable[[Break], Break]:
    def add(act: Break) -> Break:
        BREAKS[alert] = act
        return act

    return add


@breaks("FractalReconcilerSilent")
@asynccontextmanager
async def _a_worker_stands_still(ground: Ground) -> AsyncIterator[None]:
    ours = psutil.Process().children(recursive=True)
    workers = [each for each in ours if "work-pool=local" in " ".join(each.cmdline())]
    assert workers, "no worker is found"
    for process in workers:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in workers:
            process.send_signal(signal.SIGCONT)


@breaks("FractalJobsWait")
@asynccontextmanager
async def _a_job_waits(ground: Ground) -> AsyncIterator[None]:
    command = str(Path(sys.executable).with_name("fractal-prefect"))
    environment = {**os.environ, **ground.stack.environment}

    async def call(what: str) -> None:
        whole = [command, what, "--resource", "local"]
        await asyncio.to_thread(subprocess.run, whole, check=True, env=environment)

    await call("pause")
    job = await ground.job("true", 1, wait=False)
    async with ground.sql() as connection:
        await connection.execute(
            "UPDATE jobv2 SET start_timestamp = now() - interval '7 hours' WHERE id = $1", job["id"]
        )
    try:
        yield
    finally:
        await call("continue")
        await ground.lab.ended(job)


@breaks("FractalUnitsFail")
@asynccontextmanager
async def _units_fail(ground: Ground) -> AsyncIterator[None]:
    failing = asyncio.create_task(_again_and_again(lambda: ground.job("false", 40)))
    try:
        yield
    finally:
        failing.cancel()
    await ground.job("true", 200)


@breaks("FractalFolderFull")
@asynccontextmanager
async def _a_folder_is_full(ground: Ground) -> AsyncIterator[None]:
    folder = Path(ground.stack.data_dir, "small")
    folder.mkdir()
    with _one_mebibyte_at(folder):
        async with _other_tasks_folder(ground, str(folder)):
            Path(folder, "filled").write_bytes(bytes(1 << 20))
            yield


@contextmanager
def _one_mebibyte_at(folder: Path) -> Iterator[None]:
    """A file system; only root can mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@breaks("FractalFolderAway")
@asynccontextmanager
async def _a_folder_cannot_be_asked(ground: Ground) -> AsyncIterator[None]:
    async with _other_tasks_folder(ground, f"/{'long' * 100}"):
        yield


@asynccontextmanager
async def _other_tasks_folder(ground: Ground, folder: str) -> AsyncIterator[None]:
    change = "UPDATE resource SET tasks_local_dir = $1 WHERE name = 'local'"
    async with ground.sql() as connection:
        before = await connection.fetchval(
            "SELECT tasks_local_dir FROM resource WHERE name = 'local'"
        )
        await connection.execute(change, folder)
        try:
            yield
        finally:
            await connection.execute(change, before)


@breaks("FractalRequestsFail")
@asynccontextmanager
async def _requests_fail(ground: Ground) -> AsyncIterator[None]:
    async with ground.without("postgres"), _asking(ground):
        yield


@breaks("FractalRequestsSlow")
@asynccontextmanager
async def _requests_are_slow(ground: Ground) -> AsyncIterator[None]:
    async def wait_for_a_lock() -> None:
        async with ground.sql() as connection, connection.transaction():
            await connection.execute("LOCK TABLE linkuserprojectv2 IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(4)
        await asyncio.sleep(0.5)

    locking = asyncio.create_task(_again_and_again(wait_for_a_lock))
    try:
        async with _asking(ground):
            yield
    finally:
        locking.cancel()


@asynccontextmanager
async def _asking(ground: Ground) -> AsyncIterator[None]:
    """While ten people ask for their projects again and again."""

    async def ask() -> None:
        await ground.lab.client.get("/api/v2/project/")
        await asyncio.sleep(0.2)

    asking = [asyncio.create_task(_again_and_again(ask)) for _ in range(10)]
    try:
        yield
    finally:
        for task in asking:
            task.cancel()


async def _again_and_again(act: Callable[[], Awaitable[object]]) -> None:
    while True:
        await act()


@breaks("FractalSqueueSilent")
@asynccontextmanager
async def _slurm_is_away(ground: Ground) -> AsyncIterator[None]:
    cluster = await ground.left.enter_async_context(running_cluster())
    resource = resource_body(cluster, ground.stack, "slurm_sudo")
    user = await ground.left.enter_async_context(
        lab_at(cluster, ground.stack, ground.lab, resource)
    )
    script = cluster.root / "sleeps.sh"
    script.write_text("sleep 300\n")
    job = await Ground(ground.stack, user).job(f"/bin/sh {script}", 1, wait=False)
    ground.left.push_async_callback(_stop, user, job)
    await eventually(lambda: cluster.squeue("--states=RUNNING"), bool)
    cluster.kill("slurmctld", signal.SIGTERM)
    try:
        yield
    finally:
        await cluster.start("slurmctld")


async def _stop(lab: Lab, job: dict[str, Any]) -> None:
    """Stop a job that still runs."""
    await lab.ok("GET", f"{lab.base}/job/{job['id']}/stop/")
    ended = await lab.ended(job)
    assert "stopped" in ended["log"], ended["log"]
