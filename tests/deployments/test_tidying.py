"""`fractal-prefect tidy`: it removes what ended long ago, tells how much, and nothing else."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled
from pydantic import SecretStr
from sqlalchemy import URL

from deployments.installation import Installation
from deployments.stack import Stack
from deployments.tidying import tidy as tidying
from deployments.tidying.amount import NOTHING, Amount
from deployments.tidying.service_logs import tidy_logs
from deployments.tidying.tidy import Request
from flows.job import run_job
from fractal_models.settings import Settings
from tests.deployments.conftest import COMMAND, Run, environment
from tests.lab import Lab, eventually

Tidy = Callable[..., Any]


@flow
def of_others() -> None:
    """A flow of somebody else, on the same Prefect server."""


def plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


async def sql(url: URL, statement: str, *values: object) -> Any:
    """The value that a statement finds."""
    connection = await asyncpg.connect(plain(url))
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()


@pytest.fixture
def tidy(stack: Stack) -> Tidy:
    """Removes what ended 90 days ago on the stack; what is told of it."""
    settings = Settings(
        database_url=plain(stack.postgres.fractal),
        prefect_api_url=f"{stack.prefect_url}/api",
        prefect_auth_string=SecretStr(stack.prefect_auth),
    )
    installation = Installation(settings, stack.postgres.prefect)

    async def run(*, dry_run: bool = False, delete_task_groups: bool = False) -> str:
        told: list[str] = []
        request = Request(
            installation, timedelta(days=90), dry_run=dry_run, delete_task_groups=delete_task_groups
        )
        await tidying.tidy(request, told.append)
        return "\n".join(told)

    return run


@pytest.fixture
def make_old(stack: Stack) -> Callable[..., Any]:
    """Has a job have ended 100 days ago, here and in Prefect, or only there."""

    async def age(job: dict[str, Any], *, only_in_prefect: bool = False) -> None:
        past = "end_time = end_time - interval '100 days'"
        await sql(
            stack.postgres.prefect,
            f"UPDATE flow_run SET {past} WHERE id::text = $1",
            job["flow_run_id"],
        )
        if not only_in_prefect:
            past = "end_timestamp = end_timestamp - interval '100 days'"
            await sql(stack.postgres.fractal, f"UPDATE jobv2 SET {past} WHERE id = $1", job["id"])

    return age


def amounts(told: str) -> dict[str, str]:
    """What was told of each kind."""
    return dict(re.findall(r"^  (\S.*?)  +(\d.*)$", told, re.MULTILINE))


async def rows_of(stack: Stack, job: dict[str, Any]) -> dict[str, int]:
    """How many rows of each kind Prefect's database has of the flow run of a job."""
    of_run = "WHERE flow_run_id::text = $1"
    statements = {
        "flow_run": "SELECT count(*) FROM flow_run WHERE id::text = $1",
        "task_run": f"SELECT count(*) FROM task_run {of_run}",
        "log": f"SELECT count(*) FROM log {of_run}",
        "artifact": f"SELECT count(*) FROM artifact {of_run}",
        "artifact_collection": f"SELECT count(*) FROM artifact_collection {of_run}",
        "event_resources": "SELECT count(*) FROM event_resources "
        "WHERE resource_id = 'prefect.flow-run.' || $1",
    }
    return {
        table: await sql(stack.postgres.prefect, statement, job["flow_run_id"])
        for table, statement in statements.items()
    }


async def test_only_what_ended_long_ago_is_removed(
    stack: Stack, lab: Lab, tidy: Tidy, make_old: Callable[..., Any], tmp_path: Path
) -> None:
    workflow, dataset = await lab.workflow("Process"), await lab.dataset("A")
    old, kept, young = [await lab.run(workflow, dataset) for _ in range(3)]
    before = {
        job["id"]: await eventually(partial(rows_of, stack, job), lambda rows: min(rows.values()))
        for job in (old, kept, young)
    }
    await make_old(old)
    await make_old(kept, only_in_prefect=True)
    folder = Path(old["working_dir"])

    command = ["tidy", "--older-than", "90d", "--dry-run", "--data-dir", str(stack.data_dir)]
    process = await asyncio.create_subprocess_exec(
        COMMAND, *command, env=environment(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    told = amounts((await process.communicate())[0].decode())

    assert process.returncode == 0
    rows = before[old["id"]]
    assert (await rows_of(stack, old))["log"] == rows["log"]
    assert folder.is_dir()
    expected = {
        "flow runs in Prefect": 1,
        "task runs in Prefect": rows["task_run"],
        "log lines in Prefect": rows["log"],
        "artifacts in Prefect": rows["artifact"],
        "folders of jobs": 1,
        "archives of jobs": 1,
        "folders on clusters": 0,
        "logs of services": 0,
    }
    # Prefect stores events seconds later.
    assert int(told.pop("events in Prefect").split()[0]) >= rows["event_resources"]
    assert {kind: int(amount.split()[0]) for kind, amount in told.items()} == expected

    removed = amounts(await tidy())

    assert {kind: removed.get(kind, "0 (0 KB)") for kind in told} == told
    assert set((await rows_of(stack, old)).values()) == {0}
    assert not folder.exists()
    assert not folder.with_name(f"{folder.name}.zip").exists()
    for job in (kept, young):
        assert all(
            rows >= before[job["id"]][kind] for kind, rows in (await rows_of(stack, job)).items()
        )
    assert Path(young["working_dir"]).is_dir()
    now = await lab.job(old)
    assert (now["status"], now["log"]) == ("done", old["log"])
    run, units = await lab.history(workflow, dataset)
    assert (run["num_done_units"], len(units)) == (1, 1)
    assert set(amounts(await tidy()).values()) == {"0 (0 KB)"}


async def test_flow_runs_without_a_job_are_removed_but_none_of_open_jobs_or_of_others(
    stack: Stack, lab: Lab, prefect: PrefectClient, tidy: Tidy
) -> None:
    left, open_, others = [
        (await prefect.create_flow_run(flow, state=Cancelled())).id
        for flow in (run_job, run_job, of_others)
    ]
    await sql(
        stack.postgres.prefect,
        "UPDATE flow_run SET end_time = now() - interval '100 days', work_queue_id = queue.id "
        "FROM work_queue queue JOIN work_pool pool ON pool.id = work_pool_id "
        "WHERE pool.name = $1 AND flow_run.id = ANY($2)",
        *(stack.initialised.work_pool, [left, open_, others]),
    )
    # Of no project, so that no worker looks after it.
    await sql(
        stack.postgres.fractal,
        "INSERT INTO jobv2 (flow_run_id, status, user_email, fractal_server_version, "
        "first_task_index, last_task_index, start_timestamp) "
        "VALUES ($1, 'submitted', 'a', '2', 0, 0, now() - interval '100 days')",
        open_,
    )

    told = amounts(await tidy())

    await sql(stack.postgres.fractal, "DELETE FROM jobv2 WHERE flow_run_id = $1", open_)
    assert told["flow runs in Prefect"].startswith("1 ")
    assert await prefect.read_flow_run(open_)
    assert await prefect.read_flow_run(others)
    with pytest.raises(ObjectNotFound):
        await prefect.read_flow_run(left)


async def test_task_groups_that_nothing_uses_are_named_and_deleted_if_that_is_asked_for(
    stack: Stack, lab: Lab, tidy: Tidy
) -> None:
    body = {"type": "parallel", "command_parallel": "true", "version": "1"}
    forgotten, used = [
        await lab.ok("POST", "/api/v2/task/", json={**body, "name": name})
        for name in ("Forgotten", "Used")
    ]
    lab.tasks["Used"] = used["id"]
    await lab.workflow("Used")
    group = forgotten["taskgroupv2_id"]
    await sql(
        stack.postgres.fractal,
        "UPDATE taskgroupv2 SET timestamp_created = now() - interval '1 year', "
        "timestamp_last_used = now() - interval '1 year' WHERE id = ANY($1)",
        [group, used["taskgroupv2_id"]],
    )

    told = await tidy()

    ((number, named),) = re.findall(r"^  (\d+): (.*)$", told, re.MULTILINE)
    assert int(number) == group
    assert "on local, 0 KB, used last on " in named
    assert "They stay" in told
    await lab.ok("GET", f"/api/v2/task-group/{group}/")

    assert "Being deleted: 1." in await tidy(delete_task_groups=True)

    assert (await lab.client.get(f"/api/v2/task-group/{group}/")).status_code == 404
    assert "Task groups that nothing uses: 0 (0 KB)" in await tidy()


@pytest.mark.parametrize("age", ["90", "0d", "d", "-1d", "1y"])
def test_an_age_that_is_not_understood_is_refused(fractal_prefect: Run, age: str) -> None:
    assert fractal_prefect("tidy", f"--older-than={age}").is_error(age, "as 90d")


def test_the_database_of_prefect_must_be_told(fractal_prefect: Run, database: URL) -> None:
    settings = {
        "FRACTAL_DATABASE_URL": plain(database),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    tidy = ("tidy", "--older-than", "90d")
    assert fractal_prefect(*tidy, **settings).is_error("FRACTAL_PREFECT_DATABASE_URL is not set")
    settings["FRACTAL_PREFECT_DATABASE_URL"] = plain(database)
    assert fractal_prefect(*tidy, **settings).is_error("is not Prefect's")


def log_of(path: Path, *days_ago: int) -> bytes:
    """A log with a line of each of these days, and one below it."""
    times = [datetime.now() - timedelta(days=each) for each in days_ago]
    lines = [f"worker | {time:%Y-%m-%d %H:%M:%S}.123 | INFO\n  more\n" for time in times]
    path.write_text("".join(lines))
    return "".join(lines[-1:]).encode()


def test_old_lines_of_a_log_are_removed_while_a_program_writes_it(tmp_path: Path) -> None:
    log, untimed, young = tmp_path / "worker.log", tmp_path / "untimed.log", tmp_path / "young.log"
    last = log_of(log, 100, 95, 1)
    untimed.write_text("no time\n")
    log_of(young, 2, 1)
    young.write_text(f"no time\n{young.read_text()}")
    before, old = datetime.now(UTC) - timedelta(days=90), log.stat().st_size - len(last)
    with log.open("ab", buffering=0) as program:
        logs = [log, untimed, young]
        assert tidy_logs(logs, before, dry_run=True) == Amount(1, old)
        assert tidy_logs(logs, before, dry_run=False) == Amount(1, old)
        program.write(b"goes on\n")
    assert log.read_bytes() == last + b"goes on\n"
    assert untimed.read_text() == "no time\n"
    assert tidy_logs(logs, before, dry_run=False) == NOTHING
