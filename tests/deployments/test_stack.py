"""`fractal-prefect up`: what it starts, keeps and ends, however it ends itself."""

import os
import select
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments.services import is_alive
from tests.deployments.conftest import Up

Start = Callable[..., Up]


@dataclass(frozen=True)
class FirstStart:
    """A first start that was ended by SIGTERM: its folder, and what was seen of it."""

    data_dir: Path
    output: str
    exit_code: int
    ended: list[str]
    token: str


@pytest.fixture(scope="module")
def first() -> Iterator[FirstStart]:
    # Not below pytest's folder, which it closes to other users: PostgreSQL runs as another one.
    with tempfile.TemporaryDirectory(prefix="fractal-up-") as folder:
        data_dir = Path(folder, "data")
        up = Up(data_dir)
        try:
            up.wait_until_ready()
            token = log_in(up, up.told("Password"))
            ended = order_of_ends(up)
            exit_code = up.process.wait()
        finally:
            up.clean_up()
        yield FirstStart(data_dir, up.output, exit_code, ended, token)


def order_of_ends(up: Up) -> list[str]:
    """Send SIGTERM; the names of the parts in the order in which they end."""
    watched = {os.pidfd_open(part.pid): name for name, part in up.parts.items()}
    up.process.send_signal(signal.SIGTERM)
    ended = []
    while watched:
        readable, _, _ = select.select(list(watched), [], [])
        for fd in readable:
            ended.append(watched.pop(fd))
            os.close(fd)
    return ended


def log_in(up: Up, password: str) -> str:
    credentials = {"username": up.told("Admin"), "password": password}
    answer = httpx.post(f"{up.told('REST API')}/auth/token/login/", data=credentials)
    return str(answer.raise_for_status().json()["access_token"])


def who_am_i(up: Up, token: str) -> str:
    """The email to which the REST API thinks a token belongs."""
    answer = httpx.get(
        f"{up.told('REST API')}/auth/current-user/", headers={"Authorization": f"Bearer {token}"}
    )
    return str(answer.raise_for_status().json()["email"])


def test_a_first_start_tells_where_everything_is_and_the_password(first: FirstStart) -> None:
    for name in ("REST API", "Prefect UI", "Admin", "Password", "Data", "Logs"):
        assert f"\n{name}: " in first.output
    assert "Traceback" not in first.output


def test_sigterm_ends_all_parts_in_order(first: FirstStart) -> None:
    assert first.ended == ["api", "worker", "prefect", "postgres"]
    assert first.exit_code == 0
    assert first.output.endswith("Stopping ...\nStopped.\n")
    assert not (first.data_dir / "services.json").exists()


def test_secrets_are_for_the_owner_only(first: FirstStart) -> None:
    mode = (first.data_dir / "secrets.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_the_lines_of_a_log_say_which_service_speaks_and_when(first: FirstStart) -> None:
    lines = (first.data_dir / "logs" / "api.log").read_text().splitlines()
    started = next(line for line in lines if "Uvicorn running on" in line)
    name, moment, level, _ = started.split(" | ")
    assert name.strip() == "api"
    assert moment[:2] == "20"
    assert level.strip() == "INFO"


def test_a_second_start_keeps_users_and_secrets(first: FirstStart, up: Start) -> None:
    again = up(first.data_dir, "--logs")
    assert "Password:" not in again.output
    assert "Kept:" not in again.output
    assert who_am_i(again, first.token) == again.told("Admin")
    assert again.end(signal.SIGINT) == 0
    assert "\napi     | " in again.output


def test_prefect_answers_only_those_who_know_its_secret(first: FirstStart, up: Start) -> None:
    running = up(first.data_dir)
    url = f"{running.told('Prefect UI')}/api/flows/count"
    user, password = running.output.split("log in with: ")[1].split(")")[0].split(":")
    assert httpx.post(url, json={}).status_code == 401
    assert httpx.post(url, json={}, auth=(user, password)).status_code == 200


def test_after_sigkill_the_next_start_takes_over(first: FirstStart, up: Start) -> None:
    killed = up(first.data_dir)
    killed.end(signal.SIGKILL)
    assert all(map(is_alive, killed.parts.values()))
    again = up(first.data_dir)
    assert "Ended:      api, worker, prefect: left by a start before" in again.output
    assert again.parts["postgres"] == killed.parts["postgres"]
    assert not any(is_alive(killed.parts[name]) for name in ("api", "worker", "prefect"))
    assert who_am_i(again, first.token) == again.told("Admin")
    assert again.end() == 0
    assert again.ends_whole()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("worker", "Error: worker ended by SIGKILL. Its last words ("),
        ("postgres", "Error: PostgreSQL ended. Its log: "),
    ],
)
def test_a_part_that_dies_ends_the_others_and_is_named(
    first: FirstStart, up: Start, name: str, told: str
) -> None:
    running = up(first.data_dir)
    running.parts[name].kill()
    assert running.process.wait() == 1
    assert told in running.output
    assert "Traceback" not in running.output
    assert running.ends_whole()
