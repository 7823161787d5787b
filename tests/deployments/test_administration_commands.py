"""The commands with which administrators look after an installation."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlmodel import select

from fractal_models.settings import Settings
from fractal_models.tables import Resource, UserGroup
from tests.deployments.conftest import Ended, Run

Command = Callable[..., Ended]


@pytest.fixture
def command(fractal_prefect: Run, settings: Settings, sessions: object) -> Command:
    """Runs `fractal-prefect` on the module's database."""

    def run(*arguments: object) -> Ended:
        return fractal_prefect(*arguments, FRACTAL_DATABASE_URL=settings.database_url)

    return run


@pytest.fixture
def sql(settings: Settings) -> Callable[[str], list[Any]]:
    """The first column of what a statement finds."""

    async def fetch(statement: str) -> list[Any]:
        connection = await asyncpg.connect(settings.database_url)
        try:
            return [row[0] for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return lambda statement: asyncio.run(fetch(statement))


@pytest.fixture
async def jobs(
    owner: Any, runnable: Any, dataset: Any, submit: Callable[..., Awaitable[Any]]
) -> list[int]:
    """A job that was stopped, and one that goes on."""
    stopped = (await submit(runnable, dataset)).json()["id"]
    base = f"/api/v2/project/{runnable['project_id']}"
    await owner.ok("GET", f"{base}/job/{stopped}/stop/")
    return [stopped, (await submit(runnable, dataset)).json()["id"]]


@pytest.fixture
async def tasks(new_task: Callable[..., Awaitable[Any]]) -> dict[str, Any]:
    """Tasks of everybody, by name; the last is of its owner alone."""
    named = {"One": {}, "Two": {}, "Mine": {"private": True}}
    return {name: await new_task(name=name, query=query) for name, query in named.items()}


@pytest.fixture
async def everybody(session: Any, owner: Any) -> int:
    """The user group with which tasks are shared unless told otherwise."""
    group = (await session.exec(select(UserGroup))).one()
    return int(group.id)


def test_usage_is_a_table_or_csv_of_what_was_asked_for(command: Command) -> None:
    ended = command("usage", "--by", "user", "--by", "month", "--since", "2040-01-01")
    assert (ended.code, ended.out) == (0, "Nothing was reserved or used.\n")
    ended = command("usage", "--by", "month", "--until", "2000-01-01", "--csv")
    assert ended.code == 0
    assert ended.out.startswith("month,num_jobs,num_units,runner_hours,cpu_hours_reserved,")
    ended = command("usage", "--by", "colour")
    assert ended.is_error("--by", "user, group, project, resource, month")


def test_where_nothing_was_done_nothing_is_recent(command: Command) -> None:
    ended = command("recent", "--minutes", "5")
    told = "Nothing goes on, and nothing has ended in the last 5 minutes.\n"
    assert (ended.code, ended.out) == (0, told)


def test_recent_are_open_jobs_and_those_that_have_ended_lately(
    command: Command, jobs: list[int], owner: Any, sql: Callable[[str], list[Any]]
) -> None:
    stopped, going_on = jobs
    first, empty, *lines = command("recent").out.splitlines()
    assert (first, empty) == ("Jobs or activities of task groups go on.", "")
    assert lines[0].startswith(f"Job {going_on} of {owner.user.email}: submitted, 20")
    assert lines[0].endswith(" UTC to -")
    assert lines[1].startswith(f"Job {stopped} of {owner.user.email}: failed, 20")

    sql("UPDATE jobv2 SET end_timestamp = now() - interval '21 minutes' WHERE status = 'failed'")
    assert f"Job {stopped} " not in command("recent").out
    assert f"Job {stopped} " in command("recent", "--minutes", "22").out
    sql(f"UPDATE jobv2 SET status = 'done', end_timestamp = now() WHERE id = {going_on}")
    assert command("recent").out.startswith("Nothing goes on; this has ended in the last 20")

    sql(
        "INSERT INTO taskgroupactivityv2 "
        "(user_id, timestamp_started, pkg_name, version, status, action) "
        f"VALUES ({owner.user.id}, now(), 'tasks', '1.0', 'ongoing', 'collect')"
    )
    told = command("recent").out
    assert told.startswith("Jobs or activities of task groups go on.")
    assert f" of {owner.user.email}, collect tasks 1.0: ongoing, 20" in told


def test_all_resources_take_no_new_jobs_until_they_are_told_to(
    command: Command, resource: Resource, sql: Callable[[str], list[Any]]
) -> None:
    prevented = "SELECT prevent_new_submissions FROM resource"
    for _ in range(2):
        ended = command("submissions-disable")
        assert (ended.code, ended.out) == (0, "Resource 'here' takes no new jobs.\n")
        assert sql(prevented) == [True]
    assert command("submissions-enable").out == "Resource 'here' takes new jobs.\n"
    assert sql(prevented) == [False]


def test_core_tasks_become_those_that_files_name(
    command: Command,
    tasks: dict[str, Any],
    everybody: int,
    resource: Resource,
    tmp_path: Path,
    sql: Callable[[str], list[Any]],
) -> None:
    def file(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    def core() -> set[str]:
        return set(sql("SELECT name FROM taskv2 WHERE is_core"))

    packages = {
        name: sql(f"SELECT pkg_name FROM taskgroupv2 WHERE id = {task['taskgroupv2_id']}")
        for name, task in tasks.items()
    }
    named = {name: [package, "1", name] for name, (package,) in packages.items()}
    place = {"resource_id": resource.id, "user_group_id": everybody}
    where = ("sync-core-tasks", "--resources-and-groups", file("places", [place]))

    base = file("base", [*named.values(), ["unknown", "1", "One"]])
    ended = command(*where, "--base", base)
    assert (ended.code, ended.out) == (0, "Core tasks before: 0\nCore tasks now:    2\n")
    assert core() == {"One", "Two"}

    added, removed = file("added", [named["One"]]), file("removed", [named["Two"]])
    assert command(*where, "--add", added, "--remove", removed).code == 0
    assert core() == {"One"}

    nowhere = file("nowhere", [place, {"resource_id": 10**6, "user_group_id": everybody}])
    ended = command(*where[:2], nowhere, "--base", base)
    assert ended.is_error("Resource 1000000 not found")
    assert core() == {"One"}
    assert command(*where).code == 0
    assert core() == set()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file"),
        ("[", "is wrong: Invalid JSON"),
        ('[{"resource_id": 1}]', "is wrong in 0.user_group_id: Field required"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    command: Command, tmp_path: Path, content: str | None, told: str
) -> None:
    path = tmp_path / "places.json"
    if content is not None:
        path.write_text(content)
    ended = command("sync-core-tasks", "--resources-and-groups", path)
    assert ended.is_error(str(path), told)


def test_where_core_tasks_may_be_must_be_said(command: Command) -> None:
    assert command("sync-core-tasks").code == 2
