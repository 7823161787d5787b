"""A unit finds around it what it finds with the reference, but for what is documented."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from deployments.stack import Stack
from tests.cluster import Cluster
from tests.differential.reference import (
    ADMIN,
    PASSWORD,
    NoReferenceError,
    Reference,
    installed_reference,
    running_reference,
)
from tests.differential.surroundings import SCRIPT, command_into, differing, found_in
from tests.lab import Lab, logged_in
from tests.slurm_site import RUNNER_CONFIG, lab_at, resource_body

# Both units are in one SLURM job, at the same time.
META = {"cpus_per_task": 2, "tasks_per_job": 2, "parallel_tasks_per_job": 2}
EXPORTS = {"MODELS": "models/cellpose", "LICENCE": "/opt/licence"}


@asynccontextmanager
async def reference_beside(
    stack: Stack, lab: Lab, folder: Path, kind: str
) -> AsyncIterator[tuple[Reference, Lab]]:
    """The reference on the same PostgreSQL, and its administrator, with our project folder."""
    with ExitStack() as server:
        try:
            running = running_reference(stack.postgres.fractal, folder, kind=kind)
            reference = await asyncio.to_thread(server.enter_context, running)
        except NoReferenceError as error:
            pytest.skip(f"There is nothing to compare with: {error}")
        async with logged_in(reference, ADMIN, PASSWORD) as client:
            admin = Lab(client, lab.zarr_dir)
            (me,) = await admin.ok("GET", "/auth/users/")
            dirs = {"project_dirs": (await lab.ok("GET", "/auth/current-user/"))["project_dirs"]}
            await admin.ok("PATCH", f"/auth/users/{me['id']}/", json=dirs)
            project = await admin.ok("POST", "/api/v2/project/", json={"name": "of the admin"})
            admin.project_id = project["id"]
            yield reference, admin


async def test_a_unit_on_this_machine_sees_what_the_reference_shows(
    stack: Stack, lab: Lab, open_folder: Path, tmp_path: Path
) -> None:
    async with reference_beside(stack, lab, tmp_path / "local", "local") as (_, admin):
        open_folder.chmod(0o777)
        ours = await surroundings(lab, open_folder / "ours", SCRIPT)
        theirs = await surroundings(admin, open_folder / "reference", SCRIPT)

    assert ours["FRACTAL_CACHE_DIR"] == theirs["FRACTAL_CACHE_DIR"]
    assert differing(ours, theirs) == {}


@pytest.mark.parametrize("kind", ["slurm_sudo", "slurm_ssh"])
async def test_a_unit_on_a_cluster_sees_what_the_reference_shows(
    kind: str, cluster: Cluster, stack: Stack, lab: Lab, tmp_path: Path
) -> None:
    script = Path(shutil.copy(SCRIPT, cluster.root))
    async with reference_beside(stack, lab, tmp_path / kind, kind) as (reference, admin):
        resource = {
            **resource_body(cluster, stack.data_dir, kind),
            "name": f"surroundings_{kind}",
            "jobs_runner_config": {**RUNNER_CONFIG, "user_local_exports": EXPORTS},
        }
        of_reference = {
            **resource,
            "jobs_local_dir": str(cluster.server_folder / f"{kind}-reference"),
            "jobs_slurm_python_worker": str(_python_of_reference(cluster)),
        }
        async with lab_at(cluster, stack, lab, resource) as user:
            ours = await surroundings(user, cluster.user_folder / f"{kind}-ours", script)
        async with lab_at(cluster, reference, admin, of_reference) as user:
            theirs = await surroundings(user, cluster.user_folder / f"{kind}-reference", script)

    assert ours["FRACTAL_CACHE_DIR"] == theirs["FRACTAL_CACHE_DIR"]
    assert ours["MODELS"] == f"{ours['FRACTAL_CACHE_DIR']}/models/cellpose"
    assert differing(ours, theirs) == {}


async def surroundings(lab: Lab, folder: Path, script: Path) -> dict[str, str]:
    """What a unit of a job of this user finds around it."""
    folder.mkdir()
    folder.chmod(0o777)
    body = {"name": folder.name, "version": "1", "type": "parallel"}
    body = {**body, "command_parallel": command_into(folder, script), "meta_parallel": META}
    lab.tasks[folder.name] = (await lab.ok("POST", "/api/v2/task/", json=body))["id"]
    job = await lab.ask_for_job(await lab.workflow(folder.name), await lab.dataset("A", "B"))
    ended = await lab.ended(job)
    assert ended["status"] == "done", ended["log"]
    return found_in(folder)


def _python_of_reference(cluster: Cluster) -> Path:
    """A Python that the user of the cluster may run, and that has the reference's own modules."""
    worker = cluster.root / "reference"
    if not worker.exists():
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", worker], check=True)
        (installed,) = installed_reference().glob("lib/*/site-packages")
        (packages,) = worker.glob("lib/*/site-packages")
        shutil.copytree(installed / "fractal_server", packages / "fractal_server")
    return worker / "bin" / "python"
