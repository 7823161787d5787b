"""A resource is paused for maintenance, and goes on afterwards."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient

from deployments.stack import Stack
from tests.deployments.conftest import COMMAND, environment
from tests.journal import Journal, process_of
from tests.lab import Lab, eventually

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(stack: Stack, tmp_path: Path) -> Command:
    """Runs `fractal-prefect` as somebody at the terminal of the stack."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=environment(tmp_path) | stack.environment,
            capture_output=True,
            text=True,
        )

    return run


async def is_paused(prefect: PrefectClient, job: dict[str, Any]) -> bool:
    """Whether a job was told to pause."""
    state = (await prefect.read_flow_run(job["flow_run_id"])).state
    return state is not None and state.is_paused()


async def test_a_paused_resource_holds_no_process_and_goes_on_when_continued(
    journal_lab: Lab, journal: Journal, prefect: PrefectClient, command: Command, gate: Path
) -> None:
    lab = journal_lab
    args = {**journal.args, "until": str(gate)}
    workflow = await lab.workflow(("Journal process", {"args_parallel": args}), "Combine")
    job = await lab.submit(workflow, await lab.dataset("A", "B", "C"))
    await journal.begins()
    process = await process_of(prefect, job)
    pausing = asyncio.create_task(asyncio.to_thread(command, "pause", "--resource", "local"))
    await eventually(lambda: is_paused(prefect, job), bool)
    gate.touch()
    told = await pausing
    assert told.returncode == 0, told.stderr
    assert "Nothing begins on resource 'local' any more." in told.stdout
    assert f"Pauses after its workflow task: job {job['id']} " in told.stdout
    assert not process.is_running()
    assert len(journal.ended()) == 3
    waiting = await lab.submit(await lab.workflow("Process"), await lab.dataset("A"))
    told = command("continue", "--resource", "local")
    assert told.returncode == 0, told.stderr
    assert f"Goes on: job {job['id']} " in told.stdout
    for one in (job, waiting):
        ended = await lab.ended(one)
        assert ended["status"] == "done", ended["log"]
    assert len(journal.began()) == 3


async def test_an_unknown_resource_is_named_with_those_that_there_are(
    lab: Lab, command: Command
) -> None:
    resources = await lab.ok("GET", "/admin/v2/resource/")
    names = ", ".join(resource["name"] for resource in resources)
    for action in ("pause", "continue"):
        told = command(action, "--resource", "lokal")
        assert told.returncode == 1
        assert told.stderr.strip().endswith(f"There is no resource 'lokal'; there are: {names}.")
