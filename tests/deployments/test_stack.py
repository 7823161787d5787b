"""`fractal-prefect up`: what it starts, keeps alive and ends, however it ends itself."""

import json
import os
import re
import select
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.demo.client import FractalClient
from deployments.services import answers, is_alive
from tests.deployments.conftest import ONE_API, Up

pytestmark = pytest.mark.stack


@dataclass(frozen=True)
class FirstStart:
    """A first start that was ended by SIGTERM: its folder, and what was seen of it.

    It left a job which had not begun.
    """

    data_dir: Path
    output: str
    exit_code: int
    ended: list[str]
    token: str


@pytest.fixture(scope="module")
def first() -> Iterator[FirstStart]:
    # Not below pytest's folder, which it closes to other users: PostgreSQL runs as another one.
    with tempfile.TemporaryDirectory(prefix="fractal-up-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder, "data")
        up = Up(data_dir)
        try:
            up.wait_until_ready()
            token = log_in(up, up.told("Password"))
            pause(up, True)
            submit_job(up, data_dir)
            ended = order_of_ends(up)
            exit_code = up.process.wait()
        finally:
            up.clean_up()
        yield FirstStart(data_dir, up.output, exit_code, ended, token)


@pytest.fixture(scope="module")
def second(first: FirstStart) -> Iterator[Up]:
    """A second start, which runs until the third one."""
    up = Up(first.data_dir, "--logs", *ONE_API)
    try:
        up.wait_until_ready()
        yield up
    finally:
        up.clean_up()


@pytest.fixture(scope="module")
def third(first: FirstStart, second: Up) -> Iterator[Up]:
    """A start after the second one was killed, whose parts live on."""
    second.find_parts()
    second.end(signal.SIGKILL)
    assert all(map(is_alive, second.parts.values()))
    up = Up(first.data_dir, *ONE_API)
    try:
        up.wait_until_ready()
        yield up
    finally:
        up.clean_up()


def pause(up: Up, paused: bool) -> None:
    """Let no job begin, or again all."""
    url = f"{up.told('Prefect UI')}/api/work_pools/local"
    httpx.patch(url, json={"is_paused": paused}, auth=secret(up)).raise_for_status()


def submit_job(up: Up, data_dir: Path) -> None:
    client = FractalClient(up.told("REST API"), up.told("Admin"), up.told("Password"))
    base = f"/api/v2/project/{client.post('/api/v2/project/', {'name': 'stack'})['id']}"
    task = client.post(
        "/api/v2/task/", {"name": "True", "version": "1", "command_parallel": "true"}
    )
    workflow = client.post(f"{base}/workflow/", {"name": "Segment"})
    client.post(f"{base}/workflow/{workflow['id']}/wftask/", [{"task_id": task["id"]}])
    zarr_dir = str(data_dir / "projects" / "plate")
    dataset = client.post(
        f"{base}/dataset/import/",
        {"name": "plate", "zarr_dir": zarr_dir, "images": [{"zarr_url": f"{zarr_dir}/A"}]},
    )
    client.post(f"{base}/job/submit/", {}, workflow_id=workflow["id"], dataset_id=dataset["id"])


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
    """The email to which the REST API thinks a token belongs; empty if it does not answer."""
    return (ask_api(up, "auth/current-user/", token) or {}).get("email", "")


def ask_api(up: Up, path: str, token: str) -> Any:
    """What the REST API answers to a GET; None if it does not."""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = httpx.get(f"{up.told('REST API')}/{path}", headers=headers)
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def secret(up: Up) -> tuple[str, str]:
    """User and password of Prefect."""
    user, password = up.output.split("log in with: ")[1].split(")")[0].split(":")
    return user, password


def ask_prefect(up: Up, path: str) -> Any:
    """What Prefect answers to a POST; None if it does not."""
    try:
        answer = httpx.post(f"{up.told('Prefect UI')}/api/{path}", json={}, auth=secret(up))
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def worker_lives(up: Up) -> bool:
    """Whether Prefect has heard of the worker that runs now, not only of one before."""
    workers = ask_prefect(up, "work_pools/local/workers/filter") or []
    begun = up.parts["worker"].create_time()
    return any(
        datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() > begun
        for worker in workers
    )


def works(up: Up, name: str, token: str) -> bool:
    """Whether a part does its work."""
    if name == "worker":
        return worker_lives(up)
    if name == "prefect":
        return ask_prefect(up, "flows/count") is not None
    return who_am_i(up, token) == up.told("Admin")  # asks the database


def test_a_first_start_tells_where_everything_is_and_the_password(first: FirstStart) -> None:
    for name in ("REST API", "Prefect UI", "Admin", "Password", "Data", "Logs"):
        assert f"\n{name}: " in first.output
    assert "Traceback" not in first.output


def test_sigterm_ends_all_parts_in_order(first: FirstStart) -> None:
    assert first.ended == ["api", "worker", "prefect", "postgres", "fork server"]
    assert first.exit_code == 0
    assert not (first.data_dir / "services.json").exists()


def test_a_stop_tells_which_jobs_are_left(first: FirstStart) -> None:
    assert first.output.endswith(
        "\nStopping ...\nLeft: job 1 (Segment on plate) goes on at the next start.\nStopped.\n"
    )
    assert "Going on" not in first.output


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


def test_a_second_start_tells_which_jobs_go_on(first: FirstStart, second: Up) -> None:
    assert "\nGoing on: job 1 (Segment on plate)\n" in second.output
    pause(second, False)
    second.wait_until(lambda: ask_api(second, "api/v2/job/", first.token)[0]["status"] == "done")


def test_a_second_start_is_ready_when_its_own_worker_is(second: Up) -> None:
    assert worker_lives(second)


def test_a_second_start_keeps_users_and_secrets(first: FirstStart, second: Up) -> None:
    assert second.told("Password") == "in"  # where it is kept
    assert first.output.split("Password:")[1].split()[0] not in second.output
    assert "Kept:" not in second.output
    assert who_am_i(second, first.token) == second.told("Admin")


def test_the_settings_tell_the_port_that_is_in_use(first: FirstStart, second: Up) -> None:
    settings = ask_api(second, "api/settings/app/", first.token)
    assert second.told("REST API").endswith(f":{settings['FRACTAL_PORT']}")


def test_logs_are_shown_if_asked_for(first: FirstStart, second: Up) -> None:
    second.wait_until(lambda: "\napi     | " in second.output)
    assert "api     | " not in first.output


def test_prefect_answers_only_those_who_know_its_secret(second: Up) -> None:
    url = f"{second.told('Prefect UI')}/api/flows/count"
    assert httpx.post(url, json={}).status_code == 401
    assert httpx.post(url, json={}, auth=secret(second)).status_code == 200


def test_after_sigkill_the_next_start_takes_over(first: FirstStart, second: Up, third: Up) -> None:
    assert "Ended:      api, worker, prefect: left by a start before" in third.output
    assert third.parts["postgres"] == second.parts["postgres"]
    parts = ("api", "worker", "prefect", "fork server")
    assert not any(is_alive(second.parts[name]) for name in parts)
    assert who_am_i(third, first.token) == third.told("Admin")


@pytest.mark.parametrize(
    ("name", "number", "how"),
    [
        ("api", signal.SIGKILL, "by SIGKILL"),
        ("worker", signal.SIGKILL, "by SIGKILL"),
        ("prefect", signal.SIGKILL, "by SIGKILL"),
        ("postgres", signal.SIGKILL, "without shutting down, as by SIGKILL"),
        ("postgres", signal.SIGQUIT, "by shutting down"),
    ],
)
def test_a_part_that_dies_comes_back_and_is_named(
    first: FirstStart, third: Up, name: str, number: signal.Signals, how: str
) -> None:
    third.find_parts()
    died = third.parts[name]
    died.send_signal(number)
    # The second end in a row is followed by a short wait.
    then = r"(?:and was started again|\(2 times in a row\); the next start is in 1 s)\."
    told = rf"^20\S+ \S+ {name} ended {how} {then} Its log: (\S+)$"
    third.wait_until(lambda: re.search(told, third.output, re.MULTILINE))
    (log,) = re.findall(told, third.output, re.MULTILINE)
    assert Path(log).is_file()
    third.wait_until(lambda: not is_alive(died) and works(third, name, first.token))
    third.find_parts()
    assert third.parts[name] != died
    entries = json.loads((first.data_dir / "services.json").read_text())
    known = {entry["name"]: entry["pid"] for entry in entries}
    parts = ("fork server", "prefect", "worker", "api")
    assert known == {part: third.parts[part].pid for part in parts}


def takes(listener: socket.socket, port: int) -> bool:
    """Whether the port could be taken: a process that was killed has it for some moments."""
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        return False
    return True


def test_a_part_that_dies_again_and_again_is_started_until_it_lives(third: Up) -> None:
    port = int(third.told("REST API").rsplit(":", 1)[1])
    third.find_parts()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        third.parts["api"].kill()
        third.wait_until(lambda: takes(taken, port))  # long before the next one has its imports
        third.wait_until(lambda: "api ended with exit code 1 (3 times in a row)" in third.output)
    third.wait_until(lambda: "api was started again." in third.output)
    third.wait_until(lambda: answers(f"{third.told('REST API')}/api/alive/"))
    third.find_parts()


def is_started_again(up: Up, name: str, ends: int) -> bool:
    """Whether a part was started again after it has ended so often."""
    told = up.output.split(f" {name} ended ")
    return len(told) > ends and "was started again." in told[ends]


def test_postgresql_that_dies_again_and_again_ends_nothing(first: FirstStart, third: Up) -> None:
    before = third.output.count(" postgres ended ")
    for ends in range(before + 1, before + 4):
        third.find_parts()
        third.parts["postgres"].kill()
        third.wait_until(partial(is_started_again, third, "postgres", ends))
    third.wait_until(lambda: who_am_i(third, first.token) == third.told("Admin"))
    assert "Traceback" not in third.output


def test_ctrl_c_while_starting_ends_what_was_started(first: FirstStart, third: Up) -> None:
    third.clean_up()
    up = Up(first.data_dir, *ONE_API)
    try:
        up.wait_until(lambda: (first.data_dir / "services.json").exists())
        children = psutil.Process(up.process.pid).children(recursive=True)
        assert up.end(signal.SIGINT) == 0
        assert up.output.endswith("Stopped.\n")
        assert "Traceback" not in up.output
        assert children
        assert not any(map(is_alive, children))
        assert not (first.data_dir / "postgres" / "data" / "postmaster.pid").exists()
    finally:
        up.clean_up()
