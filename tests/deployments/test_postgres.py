"""The embedded PostgreSQL: that it comes back however it ended, and touches no other process."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import URL

from deployments.postgres import EmbeddedPostgres, PostgresError, embedded_postgres
from deployments.services import ServiceError, is_alive

pytestmark = pytest.mark.api

# A backend that computes does not notice that its server has died.
LONG = "SELECT count(*) FROM generate_series(1, 1000000000)"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    # Not below pytest's folder, which it closes to other users: PostgreSQL runs as another one.
    with tempfile.TemporaryDirectory(prefix="fractal-embedded-") as folder:
        Path(folder).chmod(0o755)
        with embedded_postgres(Path(folder, "postgres")) as server:
            yield server


def connect(url: URL) -> "asyncpg.Connection":
    return asyncpg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False), timeout=30
    )


async def ask(url: URL, query: str) -> object:
    connection = await connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def postmaster(server: EmbeddedPostgres) -> psutil.Process:
    pid_file = server.folder / "data" / "postmaster.pid"
    return psutil.Process(int(pid_file.read_text().split()[0]))


def send(server: EmbeddedPostgres, number: signal.Signals) -> None:
    """Send a signal, and return when the server has ended."""
    postmaster(server).send_signal(number)
    deadline = time.monotonic() + 60
    while server.ended() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "without shutting down, as by SIGKILL"),
        (signal.SIGQUIT, "by shutting down"),
        (signal.SIGINT, "by shutting down"),
    ],
)
async def test_it_accepts_connections_again_however_it_ended(
    server: EmbeddedPostgres, number: signal.Signals, how: str
) -> None:
    await ask(server.fractal, f"SELECT 1 AS a INTO kept_{number.name}")
    send(server, number)
    assert server.ended() == how
    with pytest.raises(ServiceError, match=f"^postgres ended {how}. Its last words"):
        server.check()
    server.start()
    assert server.ended() is None
    assert await ask(server.fractal, f"SELECT a FROM kept_{number.name}") == 1


async def test_queries_of_a_server_that_was_killed_do_not_keep_the_next_from_starting(
    server: EmbeddedPostgres,
) -> None:
    connection = await connect(server.fractal)
    backend = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
    query = asyncio.ensure_future(connection.fetchval(LONG))
    while not await ask(server.fractal, "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%1000%'"):
        await asyncio.sleep(0.01)
    server.kill()
    assert is_alive(backend)
    server.start()
    assert not is_alive(backend)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await query
    assert await ask(server.prefect, "SELECT 1") == 1


def test_another_process_with_the_number_of_a_killed_server_is_left_alone(
    server: EmbeddedPostgres,
) -> None:
    pid_file = server.folder / "data" / "postmaster.pid"
    server.kill()
    _, *rest = pid_file.read_text().split("\n")
    owner = pid_file.stat()
    with subprocess.Popen(["sleep", "600"], user=owner.st_uid) as other:
        try:
            pid_file.write_text("\n".join([str(other.pid), *rest]))
            server.stop()
            server.start()
            assert postmaster(server).pid != other.pid
            assert asyncio.run(ask(server.fractal, "SELECT 1")) == 1
            assert other.poll() is None
        finally:
            other.kill()


async def test_a_server_that_runs_is_taken_over(server: EmbeddedPostgres) -> None:
    before = postmaster(server)
    again = EmbeddedPostgres(server.folder)
    again.start()
    assert postmaster(again) == before
    assert again.fractal == server.fractal


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres) -> None:
    settings = server.folder / "data" / "postgresql.conf"
    good = settings.read_text()
    server.stop()
    try:
        settings.write_text(f"{good}\nno_such_setting = 1\n")
        with pytest.raises(PostgresError, match=r"does not start(.*\n)+.*no_such_setting"):
            server.start()
    finally:
        settings.write_text(good)
        server.start()
