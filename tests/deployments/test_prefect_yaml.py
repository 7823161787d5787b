"""Deployments as code: `prefect deploy` gives what the application gives."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse

from deployments.stack import Stack
from flows.engine.descriptions import DESCRIPTIONS
from flows.engine.publication import ENTRYPOINTS
from tests.lab import Lab

CHECKOUT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
POOL = "local"

# Who made a deployment, when, and from which file; what flow runs have of it is the rest.
OF_ITS_MAKING = {
    *("id", "version", "status", "last_polled"),
    *("created", "created_by", "updated", "updated_by"),
}


async def prefect_cli(stack: Stack, *arguments: str) -> str:
    """What `prefect` prints, in a checkout."""
    done = await asyncio.to_thread(
        subprocess.run,
        [PREFECT, "--no-prompt", *arguments],
        cwd=CHECKOUT,
        env=stack.environment | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def deployments(prefect: PrefectClient) -> dict[str, DeploymentResponse]:
    """The deployments of the pool by the names of their flows."""
    return {name: await prefect.read_deployment_by_name(f"{name}/{POOL}") for name in ENTRYPOINTS}


def differences(one: DeploymentResponse, other: DeploymentResponse) -> dict[str, Any]:
    """In what two deployments differ, whoever made them."""
    ones, others = (each.model_dump(mode="json", exclude=OF_ITS_MAKING) for each in (one, other))
    for fields in (ones, others):  # the command line leaves this out where it is empty
        fields["parameter_openapi_schema"].setdefault("definitions", {})
    return {name: (value, others[name]) for name, value in ones.items() if value != others[name]}


async def test_prefect_deploy_gives_the_deployments_that_the_application_gives(
    stack: Stack, lab: Lab, prefect: PrefectClient
) -> None:
    published = await deployments(prefect)
    for deployment in published.values():
        await prefect.delete_deployment(deployment.id)
    await prefect_cli(stack, "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    deployed = await deployments(prefect)
    for name in ENTRYPOINTS:
        differ = differences(published[name], deployed[name])
        assert differ == {}
        assert deployed[name].description == DESCRIPTIONS[name]
        assert str(CHECKOUT) not in deployed[name].model_dump_json()
    job = await lab.run(await lab.workflow("Process"), await lab.dataset("A"))
    assert job["status"] == "done"


async def test_prefect_makes_the_work_pool_that_the_application_makes(
    stack: Stack, lab: Lab, prefect: PrefectClient
) -> None:
    await prefect_cli(stack, "work-pool", "create", "made", "--type", "fractal-local")
    made, published = [await prefect.read_work_pool(name) for name in ("made", POOL)]
    await prefect.delete_work_pool("made")
    assert made.type == published.type
    assert made.base_job_template == published.base_job_template
