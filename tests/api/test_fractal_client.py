"""The real Fractal client against the real stack: each of its commands, used well and badly."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.initialise import default_resource
from deployments.stack import Stack
from tests.client import Client, commands, forks
from tests.lab import eventually

PASSWORD = "a good password"
UNKNOWN = 999_999


@pytest.fixture(scope="module")
async def admin(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder, email = tmp_path_factory.mktemp("admin"), stack.initialised.admin_email
    with forks() as forking:
        yield await Client.of(forking, stack.api_url, folder, email, "of the tests")


@pytest.fixture(scope="module")
async def new_user(
    admin: Client, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Awaitable[Client]]:
    """Makes a user who can run jobs, as administrators do it with the client."""
    profile = (await admin.shown("user", "whoami"))["profile_id"]

    async def make(name: str) -> Client:
        folder = tmp_path_factory.mktemp(name)
        email = f"{name}.of.the.client@example.org"
        user = await admin("user", "register", email, PASSWORD, folder / "data")
        await admin.shown("user", "edit", user, "--new-profile-id", profile)
        return await Client.of(admin.forks, admin.server, folder, email, PASSWORD)

    return make


@pytest.fixture(scope="module")
async def ann(new_user: Callable[[str], Awaitable[Client]]) -> Client:
    """A researcher."""
    return await new_user("ann")


@pytest.fixture(scope="module")
async def bob(new_user: Callable[[str], Awaitable[Client]]) -> Client:
    """Another one, whose things Ann does not see."""
    return await new_user("bob")


@pytest.fixture(scope="module")
async def tasks(ann: Client, wheel: Path) -> dict[str, int]:
    """The ids of the tasks that Ann collected from a wheel, by name."""
    activity = await ann("task", "collect", wheel, "--private")
    end = await ended_collection(ann, activity)
    assert end["status"] == "OK", end["log"]
    return {task["name"]: task["id"] for task in await ann.shown("task", "list")}


async def ended(client: Client, *command: object) -> dict[str, Any]:
    """What a command shows of a job or a collection, when that has ended."""

    async def look() -> Any:
        await asyncio.sleep(0.5)  # the client takes the time of what it waits for
        return await client.shown(*command)

    now: dict[str, Any] = await eventually(
        look, lambda now: now["status"] not in ("submitted", "pending", "ongoing")
    )
    return now


async def ended_collection(client: Client, activity: str) -> dict[str, Any]:
    return await ended(client, "task", "check-collection", activity, "--include-logs")


class Things(dict[str, str]):
    """The ids of a project and what is in it."""

    @property
    def workflow(self) -> tuple[str, str]:
        return self["project"], self["workflow"]

    @property
    def dataset(self) -> tuple[str, str]:
        return self["project"], self["dataset"]


async def things_of(client: Client, task_id: object, name: str) -> Things:
    """A project with a dataset, and a workflow of one task."""
    project = await client("project", "new", name)
    dataset = await client("project", "add-dataset", project, "images")
    workflow = await client("workflow", "new", "analysis", project)
    entry = await client("workflow", "add-task", project, workflow, "--task-id", task_id)
    return Things(project=project, dataset=dataset, workflow=workflow, entry=entry)


@pytest.fixture
async def things(ann: Client, tasks: dict[str, int], request: Any) -> Things:
    """Ann's, with a converter, which needs no images."""
    return await things_of(ann, tasks["Convert"], request.node.name)


@pytest.fixture(scope="module")
async def foreign(bob: Client) -> Things:
    """Bob's, with a task that nobody else sees."""
    task = await bob(
        "task", "new", "Mine", "--version", "1", "--command-parallel", "x", "--private"
    )
    found = await things_of(bob, task, "foreign")
    template = ("template", "new", "--workflow-id", found["workflow"], "--name", "t")
    found |= {"task": task, "template": await bob(*template, "--version", 1)}
    return found


# --- each command, used well -------------------------------------------------------------------


async def test_server_and_client_tell_their_versions(ann: Client) -> None:
    told = await ann("version", login=[])
    assert f"url: {ann.server}  version: 2." in told


async def test_a_token_is_kept_checked_used_and_cleared(ann: Client) -> None:
    path = ann.folder / "another token"
    with_token = ["--token-path", str(path)]

    await ann("auth", "set-token", login=with_token, stdin=ann.token)
    checked = await ann("auth", "check-token", login=with_token)
    used = await ann("project", "list", login=with_token)
    await ann("auth", "clear-token", login=with_token)

    assert ann.email in checked
    assert used.startswith("[")
    assert not path.exists()
    assert str(path) in await ann.refused("auth", "check-token", login=with_token)
    assert str(path) in await ann.refused("auth", "clear-token", login=with_token)
    assert "invalid" in await ann.refused("auth", "set-token", login=with_token, stdin="x\n")


async def test_users_and_groups_are_administered(admin: Client, bob: Client) -> None:
    register = ("user", "register", "new.of.the.client@example.org", PASSWORD, "/data/new")
    user = await admin(*register, "--superuser")
    group = await admin("group", "new", "by the client")
    with_bob = await admin.shown("group", "add-user", group, await bob("user", "whoami"))
    without = await admin.shown("group", "remove-user", group, await bob("user", "whoami"))
    everybody = (await admin("group", "list")).split()[0]
    await admin.shown("user", "set-groups", user, group, everybody)
    changes = {
        "--new-email": "newer.of.the.client@example.org",
        "--new-password": "another one",
        "--add-project-dir": "/data/more",
        "--remove-project-dir": "/data/new",
    }
    await admin.shown(
        *("user", "edit", user, "--make-verified", "--remove-superuser"),
        *(word for change in changes.items() for word in change),
    )
    shown = await admin.shown("user", "show", user)
    groups = await admin.shown("group", "list", "--user-ids")

    assert shown["email"] == "newer.of.the.client@example.org"
    assert shown["project_dirs"] == ["/data/more"]
    assert (shown["is_verified"], shown["is_superuser"]) == (True, False)
    assert shown["email"] in [each["email"] for each in await admin.shown("user", "list")]
    assert len(with_bob["user_ids"]) == 1
    assert without["user_ids"] == []
    assert next(each for each in groups if each["id"] == int(group))["user_ids"] == [int(user)]
    assert (await admin.shown("group", "get", group))["name"] == "by the client"
    login = ["--user", shown["email"], "--password", "another one"]
    whoami = await admin("user", "whoami", "--viewer-paths", login=login, batch=False)
    assert json.loads(whoami)["viewer_paths"] == ["/data/more"]


async def test_resources_and_profiles_are_made(stack: Stack, admin: Client) -> None:
    fields = {**default_resource(stack.data_dir), "name": "by the client"}
    file = admin.file("resource.json", fields)

    resource = await admin("resource", "new", file)
    file = admin.file("profile.json", {"resource_type": "local", "name": "by the client"})
    profile = await admin("profile", "new", resource, file)

    headers = {"Authorization": f"Bearer {admin.token}"}
    async with httpx.AsyncClient(base_url=admin.server, headers=headers, timeout=30) as http:
        for made in (f"profile/{profile}", f"resource/{resource}"):
            assert (await http.delete(f"/admin/v2/{made}/")).status_code == 204


async def test_projects_and_datasets_are_made_changed_and_deleted(ann: Client) -> None:
    project = await ann("project", "new", "short-lived")
    folder = ann.folder / "data"
    add = ("project", "add-dataset", project, "images", "--project-dir", folder)
    dataset = await ann(*add, "--zarr-subfolder", "deep/er")
    await ann.shown("project", "edit", project, "--new-name", "shorter-lived")
    await ann.shown("dataset", "edit", project, dataset, "--new-name", "pictures")

    shown = await ann.shown("dataset", "show", project, dataset)
    assert (shown["name"], shown["zarr_dir"]) == ("pictures", f"{folder}/deep/er")
    assert (await ann.shown("project", "show", project))["name"] == "shorter-lived"
    assert int(project) in [each["id"] for each in await ann.shown("project", "list")]
    await ann("dataset", "delete", project, dataset)
    await ann("project", "delete", project)
    assert int(project) not in [each["id"] for each in await ann.shown("project", "list")]


async def test_tasks_are_made_and_changed(ann: Client) -> None:
    meta, schema = ann.file("meta.json", {"mem": 1}), ann.file("schema.json", {"type": "object"})
    types = ann.file("types.json", {"is_3D": True})
    made = await ann.shown(
        *("task", "new", "Single", "--version", "1", "--task-type", "compound", "--private"),
        *("--command-parallel", "true", "--command-non-parallel", "true"),
        *("--meta-parallel", meta, "--meta-non-parallel", meta),
        *("--args-schema-parallel", schema, "--args-schema-non-parallel", schema),
        *("--args-schema-version", "pydantic_v2"),
    )
    edit = ("--command-parallel", "false", "--input-types", types, "--output-types", types)
    changed = await ann.shown("task", "edit", "--name", "Single", "--version", "1", *edit)
    await ann.shown("task", "edit", "--id", made["id"], "--command-non-parallel", "other")

    assert made["meta_parallel"] == {"mem": 1}
    assert changed["id"] == made["id"]
    assert (changed["command_parallel"], changed["output_types"]) == ("false", {"is_3D": True})


async def test_tasks_of_an_installed_package_are_collected(ann: Client) -> None:
    ann.file("run.py", "")
    task = {"name": "Run", "executable_parallel": "run.py"}
    manifest = ann.file("manifest.json", {"manifest_version": "2", "task_list": [task]})
    custom = ("task", "collect-custom", "my package", sys.executable, manifest, "--private")

    made = await ann(*custom, "--version", "0.1", "--package-root", ann.folder)
    twice = await ann.refused(*custom, "--version", "0.1", "--package-root", ann.folder)
    unknown = await ann.refused(*custom, "--version", "0.2", "--package-name", "not_there")

    assert made.isdigit()
    assert "my package 0.1 already" in twice
    assert "not_there" in unknown


@pytest.mark.pypi
async def test_tasks_of_a_package_of_the_index_are_collected(ann: Client) -> None:
    collect = ("task", "collect", "fractal-tasks-core", "--package-version", "2.1.0", "--private")

    activity = await ann(*collect, "--pre-pinned-dependency", "wheel=0.45.1")

    end = await ended_collection(ann, activity)
    assert end["status"] == "OK", end["log"]
    assert "wheel==0.45.1" in end["log"]


async def test_administrators_name_the_core_tasks(
    admin: Client, ann: Client, tasks: dict[str, int]
) -> None:
    await admin("task", "make-core", tasks["Copy"], tasks["Combine"])
    core = [task["name"] for task in await ann.shown("task", "list") if task["is_core"]]
    await admin("task", "make-not-core", tasks["Copy"], tasks["Combine"])

    assert sorted(core) == ["Combine", "Copy"]
    assert not any(task["is_core"] for task in await ann.shown("task", "list"))
    for command in ("make-core", "make-not-core"):
        assert str(UNKNOWN) in await admin.refused("task", command, UNKNOWN)
        assert "administrators" in await ann.refused("task", command, tasks["Copy"])


async def test_a_workflow_is_edited_exported_imported_and_deleted(
    ann: Client, things: Things
) -> None:
    args, meta = ann.file("args.json", {"names": ["A"]}), ann.file("meta.json", {"mem": 1})
    filters = ann.file("filters.json", {"raw": False})
    document = ann.folder / "exported workflow.json"
    both_commands = ("--command-non-parallel", "x", "--command-parallel", "y")
    await ann("task", "new", "Named", "--version", "1.2.0", "--private", *both_commands)
    add = ("workflow", "add-task", *things.workflow, "--task-name", "Named", "--task-version")
    both = ("--meta-non-parallel", meta, "--args-non-parallel", args, "--args-parallel", args)

    added = await ann(*add, "1.2.0", "--type-filters", filters, "--meta-parallel", meta, *both)
    edit = ("workflow", "edit-task", *things.workflow, added, "--type-filters", filters)
    await ann.shown(*edit, "--meta-parallel", ann.file("other.json", {"mem": 2}), *both)
    await ann.shown("workflow", "edit", *things.workflow, "--new-name", "renamed")
    await ann("workflow", "export", *things.workflow, "--json-file", document)
    to = ("--project-id", things["project"], "--json-file", document, "--workflow-name", "again")
    imported, *entries = (await ann("workflow", "import", *to)).split()
    await ann("workflow", "rm-task", *things.workflow, things["entry"])

    [left] = (await ann.shown("workflow", "show", *things.workflow))["task_list"]
    shown = await ann.shown("workflow", "show", things["project"], imported)
    assert (str(left["id"]), left["order"], left["meta_parallel"]) == (added, 0, {"mem": 2})
    assert [str(entry["id"]) for entry in shown["task_list"]] == entries
    assert shown["task_list"][1]["args_parallel"] == {"names": ["A"]}
    assert (await ann("workflow", "list", things["project"])).split() == [
        imported,
        things["workflow"],
    ]
    await ann("workflow", "delete", *things.workflow)
    assert await ann("workflow", "list", things["project"]) == imported


async def test_a_template_is_made_exported_imported_used_and_deleted(
    ann: Client, admin: Client, things: Things
) -> None:
    document = ann.folder / "exported template.json"
    group = await admin("group", "new", "with templates")
    await admin.shown("group", "add-user", group, await ann("user", "whoami"))

    new = ("template", "new", "--name", "of the client", "--version")
    template = await ann(*new, 1, "--workflow-id", things["workflow"], "--user-group-id", group)
    await ann("template", "export", template, document)
    second = await ann(*new, 2, "--json-file", document)
    use = ("workflow", "import-from-template", things["project"], second)
    workflow, _ = (await ann(*use, "--name", "of the template")).split()

    shown = await ann.shown("template", "show", template)
    assert (shown["version"], shown["user_group_id"]) == (1, int(group))
    assert (await ann.shown("template", "show", second))["data"] == shown["data"]
    used = await ann.shown("workflow", "show", things["project"], workflow)
    assert (used["name"], used["template_id"]) == ("of the template", int(second))
    assert "already" in await ann.refused(*new, 2, "--json-file", document)
    assert "already" in await ann.refused(*use, "--name", "of the template")
    await ann("template", "delete", second)
    assert second in await ann.refused("template", "show", second)


async def test_a_job_runs_and_its_files_are_downloaded(ann: Client, things: Things) -> None:
    args = ann.file("args.json", {"names": ["A", "B"]})
    await ann.shown(
        "workflow", "edit-task", *things.workflow, things["entry"], "--args-non-parallel", args
    )
    empty, logs = ann.file("none.json", {}), ann.folder / "logs"

    job = await ann(
        *("job", "submit", *things.workflow, things["dataset"], "--start", 0, "--end", 0),
        *("--worker-init", "true", "--attribute-filters-json", empty),
        *("--type-filters-json", empty),
    )
    done = await ended(ann, "job", "show", things["project"], job)
    await ann("job", "download-logs", things["project"], job, "--output", logs)

    assert done["status"] == "done", done["log"]
    assert await ann("job", "list", things["project"]) == job
    assert "Job" in next(logs.rglob("workflow.log")).read_text()
    again = ("job", "download-logs", things["project"], job, "--output", logs)
    assert "already exists" in await ann.refused(*again)
    assert "ended already" in await ann.refused("job", "stop", things["project"], job)


async def test_a_job_is_stopped(ann: Client, things: Things) -> None:
    new = ("task", "new", "Sleep", "--version", "1", "--private")
    sleep = ("--command-non-parallel", "sh -c 'exec sleep 600'")
    task = await ann(*new, "--task-type", "converter_non_parallel", *sleep)
    await ann("workflow", "add-task", *things.workflow, "--task-id", task)
    await ann("workflow", "rm-task", *things.workflow, things["entry"])
    job = await ann("job", "submit", *things.workflow, things["dataset"])
    busy = await ann.refused("job", "submit", *things.workflow, things["dataset"])
    deleted = await ann.refused("workflow", "delete", *things.workflow)
    await ann("job", "stop", things["project"], job)

    assert f"Dataset {things['dataset']} has a job" in busy
    assert f"Job {job}" in deleted
    stopped = await ended(ann, "job", "show", things["project"], job)
    assert stopped["status"] == "failed"
    assert "stopped" in stopped["log"].lower()


# --- commands, used badly ----------------------------------------------------------------------


async def test_what_is_not_there_is_named(
    ann: Client, admin: Client, tasks: dict[str, int], things: Things
) -> None:
    project, ids = things["project"], (things["project"], UNKNOWN)
    file = ann.file("workflow.json", {"name": "w", "task_list": []})
    told = await ann.refusals_of(
        ("project", "show", UNKNOWN),
        ("project", "edit", UNKNOWN, "--new-name", "x"),
        ("project", "delete", UNKNOWN),
        ("project", "add-dataset", UNKNOWN, "x"),
        ("dataset", "edit", *ids, "--new-name", "x"),
        ("dataset", "delete", *ids),
        ("workflow", "list", UNKNOWN),
        ("workflow", "new", "x", UNKNOWN),
        ("workflow", "show", *ids),
        ("workflow", "edit", *ids, "--new-name", "x"),
        ("workflow", "delete", *ids),
        ("workflow", "add-task", *ids, "--task-id", tasks["Copy"]),
        ("workflow", "add-task", *things.workflow, "--task-id", UNKNOWN),
        ("workflow", "add-task", *things.workflow, "--task-name", UNKNOWN),
        ("workflow", "edit-task", *things.workflow, UNKNOWN),
        ("workflow", "rm-task", *things.workflow, UNKNOWN),
        ("workflow", "import", "--project-id", UNKNOWN, "--json-file", file),
        ("workflow", "export", *ids, "--json-file", "x.json"),
        ("workflow", "import-from-template", *ids),
        ("template", "show", UNKNOWN),
        ("template", "new", "--workflow-id", UNKNOWN, "--name", "x", "--version", 1),
        ("template", "delete", UNKNOWN),
        ("template", "export", UNKNOWN, "x.json"),
        ("job", "list", UNKNOWN),
        ("job", "show", *ids),
        ("job", "stop", *ids),
        ("job", "download-logs", *ids, "--output", "x"),
        ("job", "submit", *things.workflow, UNKNOWN),
        ("job", "submit", *ids, things["dataset"]),
        ("task", "edit", "--id", UNKNOWN, "--command-parallel", "x"),
        ("task", "edit", "--name", UNKNOWN, "--command-parallel", "x"),
        ("task", "check-collection", UNKNOWN),
    )
    told |= await admin.refusals_of(
        ("user", "show", UNKNOWN),
        ("user", "edit", UNKNOWN, "--make-verified"),
        ("user", "set-groups", UNKNOWN, 1),
        ("user", "set-groups", 1, UNKNOWN),
        ("group", "get", UNKNOWN),
        ("group", "add-user", UNKNOWN, 1),
        ("group", "add-user", 1, UNKNOWN),
        ("group", "remove-user", 1, UNKNOWN),
        ("profile", "new", UNKNOWN, admin.file("p.json", {"resource_type": "local", "name": "x"})),
    )
    for command, words in told.items():
        last = words.splitlines()[-3:] if command[1] == "download-logs" else words.splitlines()
        assert any(str(UNKNOWN) in line for line in last), (command, words)
    # The client does not look at the status of this one answer.
    shown = await ann.shown("dataset", "show", project, UNKNOWN)
    assert shown == {"detail": "Dataset not found"}


async def test_what_belongs_to_others_is_not_found_or_forbidden(
    ann: Client, bob: Client, foreign: Things, things: Things
) -> None:
    job_of_bob = await bob("job", "submit", *foreign.workflow, foreign["dataset"])
    theirs, template = foreign["project"], foreign["template"]
    not_found = await ann.refusals_of(
        ("project", "show", theirs),
        ("project", "edit", theirs, "--new-name", "x"),
        ("project", "delete", theirs),
        ("project", "add-dataset", theirs, "x"),
        ("dataset", "edit", *foreign.dataset, "--new-name", "x"),
        ("dataset", "delete", *foreign.dataset),
        ("dataset", "delete", things["project"], foreign["dataset"]),
        ("workflow", "show", *foreign.workflow),
        ("workflow", "show", things["project"], foreign["workflow"]),
        ("workflow", "delete", *foreign.workflow),
        ("workflow", "add-task", *things.workflow, "--task-id", foreign["task"]),
        ("workflow", "rm-task", *things.workflow, foreign["entry"]),
        ("workflow", "export", *foreign.workflow, "--json-file", "x.json"),
        ("workflow", "import-from-template", things["project"], template),
        ("template", "show", template),
        ("template", "delete", template),
        ("template", "export", template, "x.json"),
        ("template", "new", "--workflow-id", foreign["workflow"], "--name", "x", "--version", 1),
        ("job", "list", theirs),
        ("job", "show", theirs, job_of_bob),
        ("job", "show", things["project"], job_of_bob),
        ("job", "stop", theirs, job_of_bob),
        ("job", "submit", *foreign.workflow, foreign["dataset"]),
        ("job", "submit", *things.workflow, foreign["dataset"]),
        ("task", "edit", "--id", foreign["task"], "--command-parallel", "x"),
    )
    file = ann.file("x.json", {})
    forbidden = await ann.refusals_of(
        ("user", "list"),
        ("user", "show", 1),
        ("user", "edit", 1, "--make-superuser"),
        ("user", "set-groups", 1, 1),
        ("user", "register", "x@example.org", PASSWORD, "/x"),
        ("group", "new", "x"),
        ("group", "add-user", 1, 1),
        ("group", "remove-user", 1, 1),
        ("resource", "new", file),
        ("profile", "new", 1, file),
    )

    for command, told in not_found.items():
        assert "Server returned 404" in told, (command, told)
        assert "not found" in told
    for command, told in forbidden.items():
        assert "Server returned 403" in told, (command, told)
        assert "Only administrators" in told
    assert (await bob.shown("project", "show", theirs))["name"] == "foreign"


async def test_files_that_are_bad_are_refused(
    ann: Client, admin: Client, tasks: dict[str, int], things: Things
) -> None:
    copy, project = tasks["Copy"], things["project"]
    one = (*things.workflow, things["entry"])
    submit = ("job", "submit", *things.workflow, things["dataset"])
    custom = ("task", "collect-custom", "--version", "1", "--package-root", "/x", "x", "/python")
    uses: list[tuple[object, ...]] = [
        ("workflow", "edit-task", *one, "--type-filters"),
        ("workflow", "add-task", *things.workflow, "--task-id", copy, "--type-filters"),
        ("workflow", "import", "--project-id", project, "--json-file"),
        ("template", "new", "--json-file"),
        (*submit, "--attribute-filters-json"),
        (*submit, "--type-filters-json"),
        ("task", "edit", "--id", copy, "--input-types"),
        custom,
    ]
    args = ("workflow", "edit-task", *one, "--args-non-parallel")
    schema = ("task", "new", "x", "--version", "1", "--command-parallel", "x")
    wrong = ann.file("wrong.json", {"wrong": [None]})
    unreadable, array = ann.file("no json.json", "{"), ann.file("array.json", [1])

    told = await ann.refusals_of(
        *((*use, wrong) for use in uses),
        (*args, array),
        (*schema, "--args-schema-parallel", array),
    )
    told |= await admin.refusals_of(("resource", "new", wrong), ("profile", "new", 1, wrong))

    for command, words in told.items():
        assert "Server returned 422" in words, (command, words)
        assert any(f"'{field}'" in words for field in ("wrong", "body")), (command, words)
    assert "/missing.json" in await ann.refused(*args, "/missing.json")
    assert "line 1 column 2" in await ann.refused(*args, unreadable)


async def test_packages_that_are_bad_are_refused(ann: Client) -> None:
    bad = ("task", "collect")
    told = await ann.refusals_of(
        (*bad, "/missing-1-py3-none-any.whl"),
        (*bad, ann.file("wheel.whl", "nothing")),
        (*bad, "x", "--python-version", "2.7"),
        (*bad, "x", "--pre-pinned-dependency", "no version"),
    )
    for command, words in told.items():
        assert Path(str(command[-1])).name in words, (command, words)
    assert "'package'" in await ann.refused(*bad, "no package name")
    wheel = ann.file("not_a-1-py3-none-any.whl", "nothing")
    end = await ended_collection(ann, await ann(*bad, wheel, "--private"))
    assert end["status"] == "failed"
    assert wheel.name in end["log"]


async def test_tasks_that_an_import_needs_are_named_with_their_versions(
    ann: Client, things: Things
) -> None:
    task = {"pkg_name": "fractal-tasks-probe", "name": "Copy", "version": "1.0"}
    file = ann.file("old.json", {"name": "old", "task_list": [{"task": task}]})

    told = await ann.refused(
        "workflow", "import", "--project-id", things["project"], "--json-file", file
    )

    assert "Task 'Copy' (package 'fractal-tasks-probe', version '1.0') not available." in told
    assert "Available versions: ['1.2.0']" in told


async def test_a_refusal_of_the_server_is_told(ann: Client, admin: Client, things: Things) -> None:
    project, entry = things["project"], things["entry"]
    twice = {
        ("project", "new", "test_a_refusal_of_the_server_is_told"): "already",
        ("workflow", "new", "analysis", project): "already",
        ("project", "new", "a/b"): "name",
        ("job", "submit", *things.workflow, things["dataset"], "--start", 4): "0 to 0",
        ("project", "add-dataset", project, "x", "--project-dir", "/x"): "project_dir",
        ("task", "new", "x", "--version", "1"): "command_parallel",
        ("workflow", "edit-task", *things.workflow, entry, "--args-parallel", "e.json"): "takes no",
    }
    ann.file("e.json", {"a": 1})
    told = await ann.refusals_of(*twice)
    for command, words in twice.items():
        assert words in told[command], (command, told[command])
    assert "already" in await admin.refused("group", "new", "All")
    taken = await admin.refused("user", "register", ann.email, PASSWORD, "/x")
    assert f"There is a user {ann.email} already." in taken


async def test_nothing_is_told_to_whom_cannot_log_in(ann: Client) -> None:
    wrong = ["--user", ann.email, "--password", "wrong"]
    for command in ("user whoami", "project list", "task list", "group list"):
        told = await ann.refused(*command.split(), login=wrong)
        assert "LOGIN_BAD_CREDENTIALS" in told
        assert "/auth/token/login/" in told
    nobody = ["--user", "nobody@example.org", "--password", PASSWORD]
    assert "LOGIN_BAD_CREDENTIALS" in await ann.refused("project", "list", login=nobody)
    assert "credentials" in await ann.refused("project", "list", login=["--user", ann.email])
    away = "http://127.0.0.1:9"
    assert away in await ann.refused("project", "list", login=wrong, server=away)


async def test_a_token_that_is_wrong_is_refused(ann: Client) -> None:
    path = ann.file("wrong token", "x.y.z")
    login = ["--token-path", str(path)]
    assert "401" in await ann.refused("auth", "check-token", login=login)
    assert "invalid or expired" in await ann.refused("project", "list", login=login, stdin="x\n")


def test_every_command_of_the_client_was_used_well_and_badly(request: Any) -> None:
    """Stands last: it looks at what the tests before it have done."""
    run = {item.originalname for item in request.session.items if item.path == request.path}
    if run != {name for name in globals() if name.startswith("test_")}:
        pytest.skip("Only a part of the tests of the client is run.")
    cannot_fail = {("version",), ("dataset", "show")}
    assert commands() - Client.used == set()
    assert commands() - Client.refusals - cannot_fail == set()
