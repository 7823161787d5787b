"""Jobs on a SLURM cluster, by sudo and by SSH: the same flow, history and accounting as here."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.stack import Stack
from flows.watchers.cluster_folders import ClusterFolders
from fractal_models.settings import get_settings
from fractal_models.tables import AccountingRecordSlurm, Allocation
from tests import journal_tasks
from tests.cluster import Cluster
from tests.cluster_machine import KNOWN_HOSTS
from tests.consistency import task_bodies
from tests.journal import Journal, process_of, require_consistent, summary_of
from tests.lab import Lab, collected, ended_activity, eventually
from tests.pixi import installed_fake_pixi, project
from tests.slurm_site import RUNNER_CONFIG, lab_at, resource_body

Sessions = async_sessionmaker[AsyncSession]
NAMES = [f"image-{number:02d}" for number in range(12)]


@pytest.fixture(scope="session", params=["slurm_sudo", "slurm_ssh"])
def kind(request: pytest.FixtureRequest) -> str:
    """The type and the name of a resource."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
async def slurm_lab(kind: str, cluster: Cluster, stack: Stack, lab: Lab) -> AsyncIterator[Lab]:
    """A user of the cluster, with the tasks that keep a journal."""
    async with lab_at(
        cluster, stack, lab, resource_body(cluster, stack.data_dir, kind)
    ) as slurm_lab:
        copy = cluster.root / "journal_tasks.py"
        shutil.copy(journal_tasks.__file__, copy)
        for body in task_bodies(kind, ["/usr/bin/python3", "-I", "-S", str(copy)]):
            made = await slurm_lab.ok("POST", "/api/v2/task/", json=body)
            slurm_lab.tasks[body["name"]] = made["id"]
        yield slurm_lab


@pytest.fixture
def slurm_journal(cluster: Cluster, request: pytest.FixtureRequest) -> Journal:
    """A journal that the cluster's user can write."""
    path = cluster.user_folder / f"{request.node.name}.jsonl"
    journal = Journal(path)
    shutil.chown(path, cluster.user)
    return journal


async def _submit_all_types(lab: Lab, journal: Journal, seconds: float = 0.05) -> dict[str, Any]:
    args = {**journal.args, "seconds": seconds}
    some, others = {**args, "names": NAMES[:3]}, {**args, "names": NAMES[3:6]}
    workflow = await lab.workflow(
        ("Journal convert", {"args_non_parallel": some}),
        (
            "Journal convert in two",
            {"args_non_parallel": others, "args_parallel": args},
        ),
        ("Journal process", {"args_parallel": args}),
        ("Journal combine", {"args_non_parallel": args}),
        ("Journal copy", {"args_non_parallel": args, "args_parallel": args}),
    )
    return await lab.submit(workflow, await lab.dataset())


async def test_all_types_of_tasks_run_on_the_cluster(
    slurm_lab: Lab, slurm_journal: Journal, fractal: Sessions
) -> None:
    job = await _submit_all_types(slurm_lab, slurm_journal)
    ended = await slurm_lab.ended(job)
    assert ended["status"] == "done", ended["log"]
    await require_consistent(fractal, job, slurm_journal)
    folder = Path(ended["working_dir_user"])
    await eventually(partial(asyncio.to_thread, folder.exists), lambda exists: not exists)
    async with fractal() as session:
        records = await session.exec(
            select(AccountingRecordSlurm).where(AccountingRecordSlurm.fractal_job_id == job["id"])
        )
        assert len(records.all()) == 7  # one array per phase of a task


async def test_how_units_ran_and_that_they_asked_for_too_much_is_told(
    slurm_lab: Lab,
    slurm_journal: Journal,
    prefect: PrefectClient,
    cluster: Cluster,
    fractal: Sessions,
) -> None:
    meta = {"mem": "400M", "time": "10", "tasks_per_job": 3, "parallel_tasks_per_job": 2}
    fields = {"args_parallel": slurm_journal.args, "meta_parallel": meta}
    workflow = await slurm_lab.workflow(("Journal process", fields))
    ended = await slurm_lab.run(workflow, await slurm_lab.dataset(*NAMES[:5]))
    assert ended["status"] == "done", ended["log"]
    assert (
        "0 Journal process, parallel: 5 units, in 2 SLURM jobs of up to 3 units, 2 at once, each "
        f"unit with 1 CPU and 400 MB, time 10, partition main, as {cluster.user}@"
    ) in ended["log"]
    warning = "each unit was given 400 MB of memory, and none used more than "
    assert ended["log"].count(warning) == 1
    text = await summary_of(prefect, ended)
    assert text.count(warning) == 1
    assert ended["working_dir_user"] in text
    async with fractal() as session:
        reserved = await session.exec(select(Allocation).where(Allocation.job_id == ended["id"]))
        found = sorted((each.num_units, each.cpus, each.mem_mb) for each in reserved)
    assert found == [(2, 2, 800), (3, 2, 800)]
    report = await slurm_lab.client.get(f"{slurm_lab.base}/job/{ended['id']}/report.html")
    assert report.status_code == 200
    assert ", asked 400 MB</dd>" in report.text


async def test_a_plan_asks_the_cluster_as_the_user_of_units(
    slurm_lab: Lab, cluster: Cluster
) -> None:
    closed = cluster.root / "closed.pt"
    closed.touch(mode=0o600)
    fields = {
        "args_parallel": {"model_path": str(closed)},
        "meta_parallel": {"partition": "short", "time": "10", "mem": "100M"},
    }
    workflow, images = await slurm_lab.workflow(("Journal process", fields)), NAMES[:5]
    dataset = await slurm_lab.dataset(*images)
    ids = {"workflow_id": workflow["id"], "dataset_id": dataset["id"]}

    plan = await slurm_lab.ok("POST", f"{slurm_lab.base}/job/plan/", params=ids, json={})

    told = " ".join(finding["told"] for finding in plan["findings"])
    assert "asks for 10 min of time, but partition short allows 1 min" in told
    assert f"{closed}, which {cluster.user}@" in told
    assert f"{dataset['zarr_dir']}/{images[0]}, which is not there" in told
    assert "not compared" not in told
    [phase] = plan["tasks"][0]["phases"]
    assert (phase["units"], phase["memory_mb"], phase["partition"]) == (5, 100, "short")


async def test_memory_that_is_auto_is_what_units_of_a_job_before_needed(
    slurm_lab: Lab, slurm_journal: Journal, fractal: Sessions
) -> None:
    """Units of known peaks, up to 150 MB, for each of which somebody has guessed 1 GB."""
    peaks = {name: 40 + 10 * number for number, name in enumerate(NAMES)}
    args = {**slurm_journal.args, "megabytes": peaks}
    meta = {"time": "10", "tasks_per_job": 3, "parallel_tasks_per_job": 1}
    reserved = []
    for mem in ("1000M", "auto", "auto"):
        fields = {"args_parallel": args, "meta_parallel": {**meta, "mem": mem}}
        workflow = await slurm_lab.workflow(("Journal process", fields))
        dataset = await slurm_lab.dataset(*NAMES)
        ended = await slurm_lab.run(workflow, dataset)
        assert ended["status"] == "done", ended["log"]
        _, units = await slurm_lab.history(workflow, dataset)
        assert {unit["attempt"] for unit in units} == {1}
        async with fractal() as session:
            found = await session.exec(select(Allocation).where(Allocation.job_id == ended["id"]))
            runners = found.all()
        assert len(runners) == 4, ended["log"]  # nothing was submitted again
        reserved.append(sum(each.mem_mb or 0 for each in runners))
    assert max(reserved[1:]) * 3 <= reserved[0]
    assert "(mem is auto: " in ended["log"]


async def test_a_job_on_a_cluster_survives_the_end_of_its_process(
    slurm_lab: Lab, slurm_journal: Journal, prefect: PrefectClient, fractal: Sessions
) -> None:
    gate = slurm_journal.path.with_suffix(".gate")
    args = {**slurm_journal.args, "until": str(gate)}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES))
    await slurm_journal.begins()
    (await process_of(prefect, job)).kill()
    gate.touch()
    ended = await slurm_lab.ended(job)
    assert "taken up again" in ended["log"]
    await require_consistent(fractal, job, slurm_journal)
    assert len(slurm_journal.began()) == len(NAMES)


async def test_a_job_that_is_stopped_leaves_no_slurm_job(
    slurm_lab: Lab, slurm_journal: Journal, cluster: Cluster
) -> None:
    args = {**slurm_journal.args, "seconds": 60}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES))
    await slurm_journal.begins()
    await slurm_lab.ok("GET", f"{slurm_lab.base}/job/{job['id']}/stop/")
    ended = await slurm_lab.ended(job)
    assert "stopped" in ended["log"]
    await cluster.wait_idle()
    assert not slurm_journal.ended()


async def test_a_job_whose_owner_has_lost_the_profile_can_be_ended(
    slurm_lab: Lab, slurm_journal: Journal, lab: Lab, prefect: PrefectClient, cluster: Cluster
) -> None:
    args = {**slurm_journal.args, "seconds": 60}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES[:2]))
    await slurm_journal.begins()
    user = await slurm_lab.ok("GET", "/auth/current-user/")
    url = f"/auth/users/{user['id']}/"
    await lab.ok("PATCH", url, json={"profile_id": None})
    try:
        (await process_of(prefect, job)).kill()
        stop = f"/admin/v2/job/{job['id']}/stop/"
        await lab.ok("GET", stop)
        found = await eventually(
            partial(lab.ok, "GET", f"/admin/v2/job/?id={job['id']}"),
            lambda found: found["items"][0]["status"] == "failed",
        )
    finally:
        await lab.ok("PATCH", url, json={"profile_id": user["profile_id"]})
    assert "has no profile" in found["items"][0]["log"]
    await cluster.cancel_all()  # which nobody could do without the profile


async def test_what_slurm_says_is_told_everywhere(
    slurm_lab: Lab, slurm_journal: Journal, cluster: Cluster
) -> None:
    args = {**slurm_journal.args, "seconds": 60}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    dataset = await slurm_lab.dataset(*NAMES[:2])
    job = await slurm_lab.submit(workflow, dataset)
    await slurm_journal.begins()
    await cluster.cancel_all()
    ended = await slurm_lab.ended(job)
    assert ended["status"] == "failed"
    assert "CANCELLED" in ended["log"]
    assert "CANCELLED" in ended["executor_error_log"]
    _, units = await slurm_lab.history(workflow, dataset)
    assert {unit["status"] for unit in units} == {"failed"}
    assert all("CANCELLED" in Path(unit["logfile"]).read_text() for unit in units)
    assert Path(ended["working_dir_user"]).is_dir()


async def test_the_folder_of_a_failed_job_is_measured_and_removed_when_it_is_old_enough(
    slurm_lab: Lab,
    slurm_journal: Journal,
    fractal: Sessions,
    kind: str,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = {**slurm_journal.args, "fail_first": NAMES[:1]}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    ended = await slurm_lab.run(workflow, await slurm_lab.dataset(*NAMES[:1]))
    folder = Path(ended["working_dir_user"])
    assert folder.is_dir()
    for name, value in {**stack.environment, "FRACTAL_SSH_KNOWN_HOSTS": KNOWN_HOSTS}.items():
        monkeypatch.setenv(name, str(value))
    get_settings.cache_clear()

    (due,) = await ClusterFolders(fractal, timedelta(0), kind).due()

    assert (await due.sizes())[folder] > 0
    assert await due.remove() == set()
    assert not folder.exists()
    assert await ClusterFolders(fractal, timedelta(0), kind).due() == []
    get_settings.cache_clear()


async def test_the_queue_of_the_cluster_is_shown(
    slurm_lab: Lab, slurm_journal: Journal, lab: Lab, cluster: Cluster
) -> None:
    args = {**slurm_journal.args, "seconds": 60}
    workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES[:2]))
    await slurm_journal.begins()
    for scope in ("all", "user"):
        queue = await slurm_lab.ok("GET", "/api/v2/job/squeue/", params={"scope": scope})
        assert "JOBID" in queue
        assert cluster.user in queue
    refused = await slurm_lab.client.get("/api/v2/job/squeue/", params={"scope": "accounts"})
    assert refused.status_code == 422
    assert "no SLURM accounts" in refused.json()["detail"]
    refused = await lab.client.get("/api/v2/job/squeue/")
    assert refused.status_code == 422
    assert "is no SLURM cluster" in refused.json()["detail"]
    await slurm_lab.ok("GET", f"{slurm_lab.base}/job/{job['id']}/stop/")
    await slurm_lab.ended(job)


async def test_a_resource_that_takes_nothing_new_lets_no_task_begin(
    slurm_lab: Lab, slurm_journal: Journal, lab: Lab, cluster: Cluster, stack: Stack, kind: str
) -> None:
    gate = slurm_journal.path.with_suffix(".gate")
    args = {**slurm_journal.args, "until": str(gate)}
    workflow = await slurm_lab.workflow(
        ("Journal process", {"args_parallel": args}),
        ("Journal combine", {"args_non_parallel": args}),
    )
    job = await slurm_lab.submit(workflow, await slurm_lab.dataset(*NAMES[:2]))
    await slurm_journal.begins()
    (resource,) = [
        each for each in await lab.ok("GET", "/admin/v2/resource/") if each["name"] == kind
    ]
    url = f"/admin/v2/resource/{resource['id']}/"
    body = resource_body(cluster, stack.data_dir, kind)
    await lab.ok("PUT", url, json={**body, "prevent_new_submissions": True})
    gate.touch()
    ended = await slurm_lab.ended(job)
    await lab.ok("PUT", url, json=body)
    assert ended["status"] == "failed"
    assert "prevent_new_submissions" in ended["log"]
    assert len(slurm_journal.ended()) == 2


@pytest.mark.usefixtures("slurm_lab")
async def test_the_runner_configuration_is_a_typed_form(prefect: PrefectClient, kind: str) -> None:
    pool = await prefect.read_work_pool(kind)
    assert pool.type == "fractal-slurm"
    variables = pool.base_job_template["variables"]
    fields, types = variables["properties"], variables["definitions"]
    for name, of_type in (
        ("default_slurm_config", "SlurmConfigSet"),
        ("batching_config", "BatchingConfigSet"),
    ):
        assert fields[name]["$ref"] == f"#/definitions/{of_type}"
        assert fields[name]["default"].items() >= RUNNER_CONFIG[name].items()
    assert {"$ref": "#/definitions/SlurmConfigSet"} in fields["gpu_slurm_config"]["anyOf"]
    assert fields["user_local_exports"]["type"] == "object"
    count = {"type": "integer", "exclusiveMinimum": 0}
    assert count in types["SlurmConfigSet"]["properties"]["cpus_per_task"]["anyOf"]
    assert count.items() <= types["BatchingConfigSet"]["properties"]["max_num_jobs"].items()


async def test_a_change_in_prefect_holds_for_the_next_job(
    slurm_lab: Lab, slurm_journal: Journal, prefect: PrefectClient, cluster: Cluster, kind: str
) -> None:
    deployment = await prefect.read_deployment_by_name(f"run-job/{kind}")

    async def set_variables(variables: dict[str, Any]) -> None:
        await prefect.update_deployment(deployment.id, DeploymentUpdate(job_variables=variables))

    async def memory_of_a_job() -> str:
        args = {**slurm_journal.args, "seconds": 2}
        workflow = await slurm_lab.workflow(("Journal process", {"args_parallel": args}))
        job = await slurm_lab.submit(workflow, await slurm_lab.dataset("A"))
        (memory,) = await eventually(lambda: cluster.squeue("--format=%m"), bool)
        ended = await slurm_lab.ended(job)
        assert ended["status"] == "done", ended["log"]
        return memory.strip()

    await set_variables({"default_slurm_config": {"partition": "main", "mem": "70M"}})
    try:
        assert await memory_of_a_job() == "70M"
    finally:
        await set_variables({})
    assert await memory_of_a_job() == "50M"


async def test_tasks_are_collected_where_they_run_and_go_and_come_back_there(
    slurm_lab: Lab, cluster: Cluster, wheel: Path
) -> None:
    activity = await slurm_lab.ok(
        "POST",
        "/api/v2/task/collect/pip/?private=true",
        files={"file": (wheel.name, wheel.read_bytes())},
    )
    group = await collected(slurm_lab, activity)
    assert Path(group["venv_path"]).owner() == cluster.user
    (task,) = [task for task in group["task_list"] if task["name"] == "Process"]
    slurm_lab.tasks["Process"] = task["id"]
    workflow, dataset = await slurm_lab.workflow("Process"), await slurm_lab.dataset("A", "B")
    assert (await slurm_lab.run(workflow, dataset))["status"] == "done"

    url = f"/api/v2/task-group/{group['id']}"
    gone = await ended_activity(slurm_lab, await slurm_lab.ok("POST", f"{url}/deactivate/"))
    assert gone["status"] == "OK", gone["log"]
    assert {path.name for path in Path(group["path"]).iterdir()} == {wheel.name, ".making"}
    back = await ended_activity(slurm_lab, await slurm_lab.ok("POST", f"{url}/reactivate/"))
    assert back["status"] == "OK", back["log"]
    assert (await slurm_lab.run(workflow, dataset))["status"] == "done"


async def test_a_collection_that_fails_leaves_nothing_where_tasks_run(
    slurm_lab: Lab,
) -> None:
    name = "fractal_tasks_broken-1.0-py3-none-any.whl"
    activity = await slurm_lab.ok(
        "POST", "/api/v2/task/collect/pip/", files={"file": (name, b"no archive")}
    )
    group = await slurm_lab.ok("GET", f"/api/v2/task-group/{activity['taskgroupv2_id']}/")
    failed = await ended_activity(slurm_lab, activity)
    assert failed["status"] == "failed"
    assert name in failed["log"]
    assert not Path(group["path"]).parent.exists()


async def test_projects_of_pixi_are_installed_where_they_run(
    slurm_lab: Lab, lab: Lab, cluster: Cluster, stack: Stack, kind: str
) -> None:
    config = installed_fake_pixi(cluster.root / f"pixi-{kind}", "/usr/bin/python3")
    config["SLURM_CONFIG"] = {"partition": "main", "cpus": 1, "mem": "100M", "time": "5"}
    config["SLURM_CONFIG"]["preamble"] = ["echo the node is prepared"]
    resources = await lab.ok("GET", "/admin/v2/resource/")
    (resource_id,) = (resource["id"] for resource in resources if resource["name"] == kind)
    body = resource_body(cluster, stack.data_dir, kind)
    url = f"/admin/v2/resource/{resource_id}/"
    await lab.ok("PUT", url, json={**body, "tasks_pixi_config": config})

    file = {"file": ("fractal_tasks_probe-2.0.tar.gz", project())}
    activity = await slurm_lab.ok("POST", "/api/v2/task/collect/pixi/?private=true", files=file)
    group = await collected(slurm_lab, activity)
    by_ssh = kind == "slurm_ssh"
    assert Path(group["venv_path"]).owner() == cluster.user
    shown = f"/api/v2/task-group/activity/{activity['id']}/"
    log = (await slurm_lab.ok("GET", shown))["log"]
    assert f"installed on {'pixi' if by_ssh else 'no node'}" in log
    assert ("\nthe node is prepared" in log) == by_ssh
    (task,) = [task for task in group["task_list"] if task["name"] == "Process"]
    slurm_lab.tasks["of pixi"] = task["id"]
    workflow, dataset = await slurm_lab.workflow("of pixi"), await slurm_lab.dataset("A", "B")
    job = await slurm_lab.run(workflow, dataset)
    assert job["status"] == "done", job["log"]

    await slurm_lab.ok("DELETE", f"{slurm_lab.base}/workflow/{workflow['id']}/")
    url = f"/api/v2/task-group/{group['id']}"
    for action in ("deactivate", "reactivate", "delete"):
        ended = await ended_activity(slurm_lab, await slurm_lab.ok("POST", f"{url}/{action}/"))
        assert ended["status"] == "OK", ended["log"]
    assert not Path(group["path"]).exists()
