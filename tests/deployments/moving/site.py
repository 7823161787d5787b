"""A site that fractal-server has served: what is on it, and what both servers say of it."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import httpx
from sqlalchemy import URL

from tests.differential.bodies import bodies
from tests.differential.contract import operations
from tests.differential.play import Stage
from tests.differential.reference import ADMIN, PASSWORD, Reference
from tests.differential.servers import DIRECTORY, Request, Server
from tests.differential.workflow_cases import random_case

GUEST, OWNER = "guest@example.org", "owner@example.org"
PEOPLE = {"admin": ADMIN, "owner": OWNER, "guest": GUEST}
FORM, FIELDS = "with a schema", ["zoom", "a", "level"]
CASES = 3  # of random workflows
_AT_MOST = 4  # requests of an operation by a person
_WAIT_SECONDS = 60

_OF_A_PROJECT = "SELECT project_id, id AS {id} FROM {table} ORDER BY id DESC"
# Values for the parameters of operations: each row is a request.
_PARAMETERS = {
    "user_id": "SELECT id AS user_id FROM user_oauth",
    "group_id": "SELECT id AS group_id FROM usergroup",
    "profile_id": "SELECT id AS profile_id FROM profile",
    "resource_id": "SELECT id AS resource_id FROM resource",
    "job_id": "SELECT id AS job_id FROM jobv2 ORDER BY id DESC",
    "task_group_id": "SELECT id AS task_group_id FROM taskgroupv2",
    "task_group_activity_id": "SELECT id AS task_group_activity_id FROM taskgroupactivityv2",
    "task_id": "SELECT id AS task_id FROM taskv2 ORDER BY id DESC",
    "template_id": "SELECT id AS template_id FROM workflowtemplate",
    "project_id": "SELECT id AS project_id FROM projectv2",
    "project_id dataset_id": _OF_A_PROJECT.format(id="dataset_id", table="datasetv2"),
    "project_id job_id": _OF_A_PROJECT.format(id="job_id", table="jobv2"),
    "project_id workflow_id": _OF_A_PROJECT.format(id="workflow_id", table="workflowv2"),
    "project_id workflow_id workflow_task_id": """
        SELECT project_id, workflow_id, workflowtaskv2.id AS workflow_task_id
        FROM workflowtaskv2 JOIN workflowv2 ON workflowv2.id = workflow_id ORDER BY 3 DESC
    """,
    "project_id history_run_id": """
        SELECT project_id, historyrun.id AS history_run_id, dataset_id, workflowtask_id
        FROM historyrun JOIN datasetv2 ON datasetv2.id = dataset_id ORDER BY 2 DESC
    """,
    "project_id zarr_url": """
        SELECT project_id, dataset_id, workflowtask_id, zarr_url
        FROM historyimagecache JOIN datasetv2 ON datasetv2.id = dataset_id ORDER BY 2 DESC, 4
    """,
    "project_id dataset_id workflowtask_id": """
        SELECT DISTINCT project_id, dataset_id, workflowtask_id
        FROM historyrun JOIN datasetv2 ON datasetv2.id = dataset_id ORDER BY 2 DESC
    """,
    "project_id dataset_id workflow_id": """
        SELECT DISTINCT project_id, dataset_id, workflow_id FROM jobv2 ORDER BY 2 DESC
    """,
}
# They do something, ask a cluster, or make a token.
_NOT_ASKED = ("/stop/", "/squeue/", "/impersonate/")
_NEEDED_QUERY = ("workflow_id", "dataset_id", "workflowtask_id", "zarr_url")


def asked_at(url: str, tokens: Mapping[str, str] | None = None) -> Server:
    # A server that crashes in a request closes a connection that would be used again.
    limits = httpx.Limits(max_keepalive_connections=0)
    return Server(url, httpx.Client(base_url=url, timeout=60, limits=limits), dict(tokens or {}))


def log_in(server: Server) -> None:
    for person, email in PEOPLE.items():
        form = {"username": email, "password": PASSWORD}
        answer = server.http.post("/auth/token/login/", data=form)
        server.tokens[person] = answer.raise_for_status().json()["access_token"]


def fill(reference: Reference) -> Server:
    """Have people work on a new site: users, groups, sharing, resources, tasks, jobs, history."""
    server = asked_at(reference.api_url)
    form = {"username": ADMIN, "password": PASSWORD}
    login = server.http.post("/auth/token/login/", data=form)
    server.tokens["admin"] = login.raise_for_status().json()["access_token"]
    profile = ok(server, "admin", "GET", "/admin/v2/profile/")[0]["id"]
    group = ok(server, "admin", "POST", "/auth/group/", {"name": "lab"})["id"]
    for email in (OWNER, GUEST):
        user = {"email": email, "password": PASSWORD, "project_dirs": [DIRECTORY]}
        made = ok(server, "admin", "POST", "/auth/register/", user)["id"]
        edit = {"is_verified": True, "profile_id": profile, "slurm_accounts": ["a", "b"]}
        ok(server, "admin", "PATCH", f"/auth/users/{made}/", edit)
        ok(server, "admin", "POST", f"/auth/group/{group}/add-user/{made}/")
    local = next(each for each in bodies("POST /admin/v2/resource/") if each["type"] == "local")
    another = {**local, "name": "another", "prevent_new_submissions": True}
    made = ok(server, "admin", "POST", "/admin/v2/resource/", another)["id"]
    new = {"resource_type": "local", "name": "another"}
    ok(server, "admin", "POST", f"/admin/v2/resource/{made}/profile/", new)
    log_in(server)
    _work(server, group)
    return server


def _work(server: Server, group: int) -> None:
    """Projects, one of them shared; jobs of random workflows; a task with a schema; a template."""
    stage = Stage(server, "case")
    for number in range(CASES):  # one after the other: lists are ordered by times, or by ids
        stage.play(random_case(Random(f"moving/{number}")))
    project = ok(server, "owner", "POST", "/api/v2/project/", {"name": "shared"})["id"]
    invite = f"/api/v2/project/{project}/guest/"
    ok(server, "owner", "POST", invite, {"permissions": "rwx"}, {"email": GUEST})
    ok(server, "guest", "POST", f"/api/v2/project/{project}/access/accept/")
    schema = {"properties": {name: {"type": "integer"} for name in FIELDS}, "title": "x"}
    task = {
        "name": FORM,
        "version": "1",
        "command_parallel": "true",
        "args_schema_parallel": schema,
        "args_schema_version": "pydantic_v2",
        "tags": ["x"],
    }
    made = ok(server, "owner", "POST", "/api/v2/task/", task)
    workflows = f"/api/v2/project/{project}/workflow/"
    workflow = ok(server, "owner", "POST", workflows, {"name": "to be run later"})["id"]
    ok(server, "owner", "POST", f"{workflows}{workflow}/wftask/", [{"task_id": made["id"]}])
    template = {"name": "template", "version": 1, "user_group_id": group}
    query = {"workflow_id": workflow, "user_group_id": group}
    ok(server, "owner", "POST", "/api/v2/workflow-template/", template, query)
    zarr_dir = f"{DIRECTORY}/zarrs"
    images = [
        {"zarr_url": f"{zarr_dir}/{name}", "attributes": {"well": name, "n": 1.0}}
        for name in ("A", "B")
    ]
    body = {"name": "images", "zarr_dir": zarr_dir, "images": images}
    ok(server, "owner", "POST", f"/api/v2/project/{project}/dataset/import/", body)


def fields_of_form(server: Server) -> list[str]:
    """The arguments of a task in the order in which clients show them."""
    tasks = ok(server, "owner", "GET", "/api/v2/task/")
    (number,) = (each["id"] for each in tasks if each["name"] == FORM)
    task = ok(server, "owner", "GET", f"/api/v2/task/{number}/")
    return list(task["args_schema_parallel"]["properties"])


def begin_a_job(server: Server, gate: Path) -> tuple[dict[str, Any], int]:
    """A job in a project of its own, whose unit runs until the file that is open here is closed."""
    os.mkfifo(gate)
    project = ok(server, "owner", "POST", "/api/v2/project/", {"name": "left"})["id"]
    base = f"/api/v2/project/{project}"
    task = {"name": "waits", "version": "1", "command_parallel": f"sh -c 'cat {gate}'"}
    made = ok(server, "owner", "POST", "/api/v2/task/", task)["id"]
    workflow = ok(server, "owner", "POST", f"{base}/workflow/", {"name": "left"})["id"]
    entries = f"{base}/workflow/{workflow}/wftask/"
    ok(server, "owner", "POST", entries, [{"task_id": made}])
    zarr_dir = f"{DIRECTORY}/zarrs"
    body = {"name": "left", "zarr_dir": zarr_dir, "images": [{"zarr_url": f"{zarr_dir}/A"}]}
    dataset = ok(server, "owner", "POST", f"{base}/dataset/import/", body)["id"]
    query = {"workflow_id": workflow, "dataset_id": dataset}
    job = ok(server, "owner", "POST", f"{base}/job/submit/", {}, query)
    return job, wait_until(lambda: _opened(gate))


def _opened(gate: Path) -> int | None:
    """A pipe, opened to be written to; None if nobody reads from it yet."""
    try:
        return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def wait_until(look: Callable[[], Any]) -> Any:
    """What is seen, as soon as it is something."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "It does not come."
        time.sleep(0.1)
    return seen


def ok(
    server: Server, person: str, method: str, path: str, body: Any = None, query: Any = None
) -> Any:
    answer = server.ask(Request(person, method, path, {}, query or {}, body))
    assert answer.ok, f"{server.name} refused {method} {path} {body}: {answer}"
    return answer.body


def questions(document: dict[str, Any], database: URL) -> Iterator[tuple[str, Request]]:
    """Every GET of the contract, of all people, about what there is; with the operation's name."""
    values = asyncio.run(_values(database))
    for operation in operations(document):
        if operation.method != "GET" or any(each in operation.path for each in _NOT_ASKED):
            continue
        needed = [each for each in operation.query if each in _NEEDED_QUERY]
        is_filter = not operation.path.startswith("/api/v2/project/{")
        names = [*operation.parameters, *([] if is_filter else needed)]
        rows = _rows(names, values)
        for person in ["admin"] if operation.path.startswith("/admin/") else PEOPLE:
            for row in rows[:_AT_MOST]:
                parameters = {each: row[each] for each in operation.parameters}
                query = {} if is_filter else {each: row[each] for each in needed}
                yield operation.name, Request(person, "GET", operation.path, parameters, query)


def _rows(names: list[str], values: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if not names:
        return [{}]
    fitting = [rows for key, rows in values.items() if set(key.split()) == set(names)]
    fitting += [rows for rows in values.values() if rows and set(names) <= rows[0].keys()]
    assert fitting, f"Nothing is known of {names}."
    return fitting[0]


async def _values(database: URL) -> dict[str, list[dict[str, Any]]]:
    connection = await connect(database)
    values = {
        names: [dict(row) for row in await connection.fetch(query)]
        for names, query in _PARAMETERS.items()
    }
    await connection.close()
    return values


async def connect(database: URL) -> asyncpg.Connection:
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    return await asyncpg.connect(url)


def run_sql(database: URL, *statements: str) -> Any:
    """Execute statements; the rows of the last one."""

    async def run() -> Any:
        connection = await connect(database)
        rows = [await connection.fetch(each) for each in statements]
        await connection.close()
        return rows[-1]

    return asyncio.run(run())


def rows_of_tables(database: URL, tables: list[str]) -> dict[str, int]:
    """How many rows each table has."""
    query = " UNION ALL ".join(f"SELECT '{each}', count(*) FROM {each}" for each in tables)
    return dict(map(tuple, run_sql(database, query)))


def tables_of(database: URL) -> list[str]:
    """The tables of the database that programs see."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return [row[0] for row in run_sql(database, query)]


def contents_of(database: URL, tables: list[str]) -> dict[str, set[str]]:
    """The rows of each table, as JSON without what is null."""
    return {
        table: {row[0] for row in run_sql(database, f"SELECT {_ROW} FROM {table} AS each")}
        for table in tables
    }


_ROW = "jsonb_strip_nulls(to_jsonb(each))::text"
