"""A site of the real fractal-server is taken over, used, and given back."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import URL

from deployments.services import Service, usable_port
from deployments.stack import Stack
from tests.deployments.conftest import COMMAND, Run, environment
from tests.deployments.moving.site import (
    FIELDS,
    asked_at,
    begin_a_job,
    contents_of,
    fields_of_form,
    fill,
    log_in,
    ok,
    questions,
    rows_of_tables,
    run_sql,
    tables_of,
    wait_until,
)
from tests.differential.comparison import Difference, between
from tests.differential.known import reason_of
from tests.differential.reference import (
    SECRET,
    NoReferenceError,
    running_reference,
    started_reference,
)
from tests.differential.servers import Answer, Request, Server

RESOURCE = "Local resource"  # the one that fractal-server makes
MANY = 150  # answers are compared
OF_A_JOB = ("jobv2", "historyrun", "historyunit")  # which was left, so it is ended


@pytest.fixture(autouse=True)
def work_pools(stack: Stack) -> Iterator[None]:
    """Leave the stack the work pools that it had."""
    user, password = stack.prefect_auth.split(":")
    with httpx.Client(base_url=f"{stack.prefect_url}/api", auth=(user, password)) as prefect:
        before = names_of_pools(prefect)
        yield
        for name in names_of_pools(prefect) - before:
            prefect.delete(f"/work_pools/{quote(name)}").raise_for_status()


def names_of_pools(prefect: httpx.Client) -> set[str]:
    found = prefect.post("/work_pools/filter", json={}).raise_for_status().json()
    return {pool["name"] for pool in found}


@pytest.fixture
def settings(stack: Stack) -> dict[str, str]:
    """Those of fractal-prefect on the database of the reference."""
    return {
        "FRACTAL_DATABASE_URL": plain(stack.postgres.fractal.set(database="reference")),
        "PREFECT_API_URL": f"{stack.prefect_url}/api",
        "PREFECT_API_AUTH_STRING": stack.prefect_auth,
        "FRACTAL_JWT_SECRET": SECRET,
    }


def plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def test_a_site_moves_with_all_it_has_and_back(
    stack: Stack, tmp_path: Path, fractal_prefect: Run, settings: dict[str, str]
) -> None:
    folder = tmp_path / "reference"
    try:
        with running_reference(stack.postgres.fractal, folder) as reference:
            server, database = fill(reference), reference.database
            _write_old_rows(database)
            left, gate = begin_a_job(server, tmp_path / "gate")
            reference.service.kill()
    except NoReferenceError as error:
        pytest.skip(f"There is no fractal-server here: {error}")
    os.close(gate)
    statuses = run_sql(database, "SELECT DISTINCT status FROM jobv2 ORDER BY status")
    assert [row[0] for row in statuses] == ["done", "failed", "submitted"]
    with started_reference(database, folder) as reference:
        theirs = asked_at(reference.api_url, server.tokens)
        document = theirs.http.get("/openapi.json").json()
        asked = list(questions(document, database))
        told = answers(theirs, asked)
    tables = tables_of(database)
    rows = rows_of_tables(database, tables)
    copy = database.set(database="reference_copy")
    run_sql(stack.postgres.fractal, "DROP DATABASE IF EXISTS reference_copy")
    run_sql(stack.postgres.fractal, "CREATE DATABASE reference_copy TEMPLATE reference")
    about_left = f"Job {left['id']} of owner@example.org"

    check_adoption, adoption, check_return, return_ = told_to_type()

    for command in (adoption, return_):
        assert fractal_prefect(*command, FRACTAL_DATABASE_URL=plain(copy)).code == 0
    before, after = contents_of(database, tables), contents_of(copy, tables)
    changed = {table: len(before[table] - after[table]) for table in tables}
    assert {table: n for table, n in changed.items() if n} == dict.fromkeys(OF_A_JOB, 1)

    checked = fractal_prefect(*check_adoption, **settings)
    assert checked.code == 0, checked
    assert about_left in checked.out
    assert rows_of_tables(database, tables) == rows
    adopted = fractal_prefect(*adoption, **settings)

    assert adopted.code == 0, adopted
    assert about_left in adopted.out
    assert f"Resource {RESOURCE!r} has a work pool" in adopted.out
    assert rows_of_tables(database, tables) == rows
    with serving(settings, tmp_path) as ours:
        # The login tokens that fractal-server has given count here too, as the secret is the same.
        ours.tokens = server.tokens
        found = unlike(asked, answers(ours, asked), told, left["project_id"])
        assert not found, "\n".join(found)
        ended = ok(ours, "owner", "GET", f"/api/v2/project/{left['project_id']}/job/{left['id']}/")
        assert ended["status"] == "failed"
        assert "when its database was taken over" in ended["log"]
        log_in(ours)
        assert fields_of_form(ours) == FIELDS
        job = _run_a_job(ours)
        assert job["status"] == "done", job["log"]
        asked = list(questions(document, database))
        told = answers(ours, asked)
    rows = rows_of_tables(database, tables)

    assert fractal_prefect(*check_return, **settings).code == 0
    returned = fractal_prefect(*return_, **settings)

    assert returned.code == 0, returned
    assert rows_of_tables(database, tables) == rows
    with started_reference(database, folder) as reference:
        theirs = asked_at(reference.api_url)
        log_in(theirs)
        found = unlike(asked, told, answers(theirs, asked))
        assert not found, "\n".join(found)
        assert fields_of_form(theirs) == FIELDS
        ok(theirs, "owner", "POST", "/api/v2/project/", {"name": "new"})
    assert rows_of_tables(database, tables)["projectv2"] == rows["projectv2"] + 1


def told_to_type() -> list[list[str]]:
    """The arguments of the commands `fractal-prefect db` of the page for administrators."""
    page = Path(__file__).parents[3] / "docs" / "moving.md"
    found = re.findall(r"^ *fractal-prefect (db .+)$", page.read_text(), re.MULTILINE)
    return [line.split() for line in found]


def answers(server: Server, asked: list[tuple[str, Request]]) -> list[Answer]:
    return [server.ask(request) for _, request in asked]


@contextmanager
def serving(settings: dict[str, str], folder: Path) -> Iterator[Server]:
    """The REST API and a worker, on the database of the site."""
    port = usable_port("127.0.0.1", 0, "--port")
    inherited = environment(folder) | settings
    api = Service("api", [COMMAND, "api", "--port", str(port)], inherited, folder / "api.log")
    worker = Service(
        "worker", [COMMAND, "worker", "--resource", RESOURCE], inherited, folder / "worker.log"
    )
    server = asked_at(f"http://127.0.0.1:{port}")
    try:
        for service in (api, worker):
            service.start()
        wait_until(lambda: _is_served(api, server))
        yield server
    finally:
        for service in (worker, api):
            service.stop()


def _is_served(api: Service, server: Server) -> bool:
    api.check()
    with suppress(httpx.TransportError):
        return server.http.get("/api/alive/").is_success
    return False


def _run_a_job(server: Server) -> Any:
    """A job on what fractal-server has left, when it has ended."""
    (project,) = [
        each["id"]
        for each in ok(server, "guest", "GET", "/api/v2/project/", None, {"is_owner": False})
        if each["name"] == "shared"
    ]
    base = f"/api/v2/project/{project}"
    (workflow,) = ok(server, "guest", "GET", f"{base}/workflow/")
    (dataset,) = ok(server, "guest", "GET", f"{base}/dataset/")
    query = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}
    job = ok(server, "guest", "POST", f"{base}/job/submit/", {}, query)
    path = f"{base}/job/{job['id']}/"
    wait_until(lambda: ok(server, "guest", "GET", path)["status"] != "submitted")
    return ok(server, "guest", "GET", path)


def unlike(
    asked: list[tuple[str, Request]],
    ours: list[Answer],
    reference: list[Answer],
    left: int | None = None,
) -> list[str]:
    """What both were asked and answer differently, but for what is meant, or of a project."""
    assert sum(answer.ok for answer in reference) > MANY
    return [
        f"{request}: {difference}"
        for (operation, request), *pair in zip(asked, ours, reference, strict=True)
        if left is None or request.parameters.get("project_id") != left
        for difference in _differences(*pair, left)
        if reason_of(operation, difference) is None
    ]


def _differences(ours: Answer, reference: Answer, left: int | None) -> list[Difference]:
    if ours.status != reference.status:
        return [Difference("status", *(f"{each.status} {each.body}" for each in (ours, reference)))]
    if not reference.ok:
        return []
    return list(between(*(_without(each.body, left) for each in (ours, reference))))


def _without(body: Any, project: int | None) -> Any:
    """Without what is of a project, and without the order of workflows, which has no meaning."""
    if isinstance(body, dict):
        if project is not None and body.get("project_id") == project:
            return None
        return {key: _without(each, project) for key, each in body.items()}
    if isinstance(body, list):
        if body and isinstance(body[0], dict) and "workflow_name" in body[0]:
            body = sorted(body, key=lambda each: int(each["workflow_id"]))
        return [_without(each, project) for each in body]
    return body


def _write_old_rows(database: URL) -> None:
    """What only older versions of fractal-server and OAuth providers write."""
    run_sql(
        database,
        "INSERT INTO accountingrecordslurm (user_id, timestamp, slurm_job_ids)"
        " SELECT id, now(), ARRAY[1, 2] FROM user_oauth",
        "INSERT INTO oauthaccount (user_id, oauth_name, access_token, account_id, account_email)"
        " SELECT id, 'github', 'token', 'account ' || id, email FROM user_oauth",
    )
