"""What a job writes to may be full, closed or damaged: it fails, and names file and cause."""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.launchers.local import is_running
from tests.journal import Journal, process_of, require_consistent, runner_of
from tests.lab import Lab, eventually

POOL = "local"
NAMES = [f"image-{number:02d}" for number in range(12)]
Interrupted = Callable[[], Awaitable[dict[str, Any]]]


@pytest.fixture
async def pause(prefect: PrefectClient) -> AsyncIterator[Callable[[bool], Awaitable[None]]]:
    """Has the pool start no flow runs, or again; at the end it does."""

    async def pause(is_paused: bool) -> None:
        await prefect.update_work_pool(POOL, WorkPoolUpdate(is_paused=is_paused))

    yield pause
    await pause(False)


async def _submit(lab: Lab, task: str, **args: Any) -> dict[str, Any]:
    """A job of one workflow task; with its workflow and its dataset."""
    workflow = await lab.workflow((task, {"args_parallel": args}))
    dataset = await lab.dataset(*NAMES)
    return {**await lab.submit(workflow, dataset), "workflow": workflow, "dataset": dataset}


@pytest.fixture(scope="module")
async def noisy_task(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task of which each unit writes 150 kB to its log."""
    program = tmp_path_factory.mktemp("tasks") / "noisy.py"
    program.write_text("print('noise ' * 25_000)")
    body = {
        "name": "Noisy",
        "version": "1",
        "command_parallel": shlex.join([sys.executable, str(program)]),
        "output_types": {"noisy": True},
    }
    lab.tasks["Noisy"] = (await lab.ok("POST", "/api/v2/task/", json=body))["id"]
    return "Noisy"


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mounts something on a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", *options, str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
            pytest.skip("only root may mount")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


async def test_a_full_disk_fails_the_job_which_names_file_and_cause(
    lab: Lab,
    noisy_task: str,
    pause: Callable[[bool], Awaitable[None]],
    mount: Callable[..., None],
) -> None:
    await pause(True)
    job = await _submit(lab, noisy_task)
    mount(Path(job["working_dir"]), "-t", "tmpfs", "-o", "size=1M", "tmpfs")
    await pause(False)
    ended = await lab.ended(job)
    print(ended["log"])
    assert ended["status"] == "failed"
    assert "No space left on device" in ended["log"]
    assert job["working_dir"] in ended["log"].split("No space left on device")[1]
    await _require_images_of_done_units(lab, job)


async def test_a_folder_made_read_only_fails_the_job_which_names_file_and_cause(
    lab: Lab,
    mount: Callable[..., None],
) -> None:
    job = await _submit(lab, "Process", seconds=0.3)
    folder = Path(job["working_dir"])
    results = folder / "0_process/batches/parallel/results.jsonl"

    async def lines() -> int:
        return len(results.read_text().splitlines()) if results.exists() else 0

    await eventually(lines, lambda now: now > 3)
    mount(folder, "--bind", str(folder))
    mount(folder, "-o", "remount,bind,ro")
    ended = await lab.ended(job)
    print(ended["log"])
    assert ended["status"] == "failed"
    assert "Read-only file system" in ended["log"]
    await _require_images_of_done_units(lab, job)


@pytest.mark.parametrize("removed", ["", "0_journal_process/batches"])
async def test_a_folder_removed_while_units_run_fails_the_job_which_names_it(
    journal_lab: Lab, journal: Journal, removed: str
) -> None:
    """What they did is not known, so they do not run again."""
    job = await _submit(journal_lab, "Journal process", **journal.args, seconds=0.5)
    await journal.reaches(2)
    folder = Path(job["working_dir"], removed)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    ended = await journal_lab.ended(job)
    print(ended["log"])
    assert ended["status"] == "failed"
    assert str(folder) in ended["log"]
    assert ".." not in ended["log"]
    began = journal.began()
    assert len(began) == len(set(began))
    url = f"{journal_lab.base}/dataset/{job['dataset']['id']}/"
    await journal_lab.ok("DELETE", url)


@pytest.fixture
def interrupted(
    journal_lab: Lab,
    journal: Journal,
    prefect: PrefectClient,
    pause: Callable[[bool], Awaitable[None]],
) -> Interrupted:
    """A job of which some units have ended, and neither process nor unit runner lives."""

    async def interrupted() -> dict[str, Any]:
        job = await _submit(journal_lab, "Journal process", **journal.args, seconds=0.3)
        await journal.reaches(2)
        executor, runner = await process_of(prefect, job), await runner_of(job)
        await pause(True)
        executor.kill()
        runner.kill()
        lock = Path(job["working_dir"], "0_journal_process/batches/parallel")

        async def runs() -> bool:
            return await asyncio.to_thread(is_running, lock)

        await eventually(runs, lambda now: not now)
        return job

    return interrupted


@pytest.mark.parametrize("file", ["batch.json", "results.jsonl"])
async def test_a_damaged_file_fails_the_job_which_names_it(
    journal_lab: Lab,
    interrupted: Interrupted,
    pause: Callable[[bool], Awaitable[None]],
    file: str,
) -> None:
    job = await interrupted()
    path = Path(job["working_dir"], "0_journal_process/batches/parallel", file)
    path.write_text("{damaged\n" + path.read_text()[9:])
    await pause(False)
    ended = await journal_lab.ended(job)
    print(ended["log"])
    assert ended["status"] == "failed"
    assert str(path) in ended["log"]


async def test_a_job_that_an_older_version_began_goes_on(
    journal_lab: Lab,
    journal: Journal,
    interrupted: Interrupted,
    pause: Callable[[bool], Awaitable[None]],
    fractal: async_sessionmaker[AsyncSession],
) -> None:
    job = await interrupted()
    folder = Path(job["working_dir"], "0_journal_process/batches/parallel")
    batch = json.loads((folder / "batch.json").read_text())
    del batch["attempt"]
    (folder / "batch.json").write_text(json.dumps({**batch, "format": 1}))
    results = (folder / "results.jsonl").read_text()
    (folder / "results.jsonl").write_text(results.replace('{"format": 2', '{"format": 1', 1))
    (folder.parent / "unit_runner.py").write_text("raise SystemExit('of an older version')\n")
    await pause(False)
    await journal_lab.ended(job)
    await require_consistent(fractal, job, journal)


async def _require_images_of_done_units(lab: Lab, job: dict[str, Any]) -> None:
    """The image list has what the units did that are recorded as done, and no more."""
    _, units = await lab.history(job["workflow"], job["dataset"])
    done = {url for unit in units if unit["status"] == "done" for url in unit["zarr_urls"]}
    images = await lab.images(job["dataset"])
    changed = {image["zarr_url"] for image in images.values() if image["types"]}
    assert changed == done
