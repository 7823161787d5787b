"""An upgrade from the last version while jobs run on a cluster, by sudo and by SSH."""

import shutil
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import journal_tasks
from tests.cluster import Cluster
from tests.consistency import task_bodies
from tests.deployments.upgrading import UNITS, code_of, up
from tests.journal import Journal
from tests.lab import Lab, logged_in
from tests.slurm_site import PASSWORD, lab_at, resource_body

KINDS = ("slurm_sudo", "slurm_ssh")
NAMES = [f"image-{number:02d}" for number in range(UNITS)]


@dataclass(frozen=True)
class Api:
    """Where an `up` serves the REST API."""

    api_url: str


async def begin_job(lab: Lab, journal: Journal, gate: Path, script: Path) -> dict[str, Any]:
    """A job of one unit for each of some images, which end when the gate is there."""
    (body,) = (
        each
        for each in task_bodies("1", ["/usr/bin/python3", "-I", "-S", str(script)])
        if each["name"] == "Journal process"
    )
    lab.tasks[body["name"]] = (await lab.ok("POST", "/api/v2/task/", json=body))["id"]
    fields = {"args_parallel": {**journal.args, "until": str(gate)}}
    workflow = await lab.workflow((body["name"], fields))
    return await lab.submit(workflow, await lab.dataset(*NAMES))


async def test_jobs_of_the_last_version_on_a_cluster_are_done_by_this_one(
    cluster: Cluster, open_folder: Path
) -> None:
    last_version = code_of("last_version", open_folder)
    data_dir, gate = open_folder / "data", cluster.user_folder / "upgrade-gate"
    script = Path(shutil.copy(journal_tasks.__file__, cluster.root / "journal_tasks.py"))
    known_hosts = open_folder / ".ssh" / "known_hosts"  # `up` has this folder as its home
    known_hosts.parent.mkdir()
    known_hosts.write_text(cluster.host_key)
    jobs: dict[str, tuple[dict[str, Any], Journal]] = {}
    with up(data_dir, last_version) as before:
        api, admin = Api(before.told("REST API")), before.told("Admin")
        async with AsyncExitStack() as people:
            client = await people.enter_async_context(
                logged_in(api, admin, before.told("Password"))
            )
            for kind in KINDS:
                resource = resource_body(cluster, data_dir, kind)
                at = lab_at(cluster, api, Lab(client, data_dir), resource)
                journal = Journal(cluster.user_folder / f"upgrade-{kind}.jsonl")
                shutil.chown(journal.path, cluster.user)
                lab = await people.enter_async_context(at)
                jobs[kind] = await begin_job(lab, journal, gate, script), journal
            for _, journal in jobs.values():
                await journal.begins()
        stopped = time.monotonic()
        before.end()
    gate.touch()  # so units end while nothing but SLURM is there

    with up(data_dir) as after:
        print(f"Nothing but SLURM for {time.monotonic() - stopped:.1f} s.")
        api = Api(after.told("REST API"))
        for kind, (job, journal) in jobs.items():
            async with logged_in(api, f"{kind}@example.org", PASSWORD) as client:
                lab = Lab(client, cluster.user_folder)
                lab.project_id = job["project_id"]
                ended = await lab.ended(job)
                assert ended["status"] == "done", ended["log"]
                images = await lab.images({"id": job["dataset_id"]})
            assert sorted(images) == NAMES
            assert all(each["attributes"]["processed"] == 1 for each in images.values())
            assert len(journal.began()) == len(set(journal.began())) == UNITS
            assert sorted(journal.ended()) == sorted(journal.began())
