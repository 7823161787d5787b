"""The flow `collect-tasks`: installs a task package and reads its tasks from its manifest."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect_shell import ShellOperation

from flows import task_environment
from flows.stopping import stopped_by_signal
from flows.task_environment import PackageError
from fractal_models.database import open_database
from fractal_models.settings import get_settings
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2, TaskV2
from fractal_models.tables.columns import now

_LOG_LINES_TOLD = 20


async def undo_collection(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The collection failed, was stopped or crashed: its folder and its task group go."""
    activity_id = int(flow_run.parameters["activity_id"])
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        activity = await session.get(TaskGroupActivityV2, activity_id)
        if activity is None or activity.status not in ("pending", "ongoing"):
            return
        group = await session.get(TaskGroupV2, activity.taskgroupv2_id)
        if group is not None:
            if group.path is not None:
                await asyncio.to_thread(_remove, Path(group.path))
            activity.taskgroupv2_id = None
            await session.delete(group)
        message = (state.message or "").removeprefix("Flow run encountered an exception: ")
        _end(activity, "failed", f"Collection failed. {message}")
        await session.commit()


@flow(
    name="collect-tasks",
    description="Installs a package of Fractal tasks into an environment of its own.",
    on_failure=[undo_collection],
    on_cancellation=[undo_collection],
    on_crashed=[undo_collection],
    persist_result=False,
)
async def collect_tasks(activity_id: int) -> None:
    """Make the environment of a task group, install its package, add its tasks, activate it.

    Args:
        activity_id: the id of a pending TaskGroupActivityV2 with action `collect`.
    """
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        activity = await session.get_one(TaskGroupActivityV2, activity_id)
        group = await session.get_one(TaskGroupV2, activity.taskgroupv2_id)
        resource = await session.get_one(Resource, group.resource_id)
        activity.status = "ongoing"
        await session.commit()
        installation = asyncio.ensure_future(_install(group, resource))
        with stopped_by_signal(installation.cancel):
            log = await installation
        group.task_list = await _read_tasks(group)
        group.active = True
        _end(activity, "OK", "\n".join(log))
        await session.commit()


def _end(activity: TaskGroupActivityV2, status: Literal["OK", "failed"], log: str) -> None:
    activity.status = status
    activity.timestamp_ended = now()
    activity.log = log


def _remove(folder: Path) -> None:
    """Remove a task group's folder, and that of its package if no other version is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.exists() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


async def _install(group: TaskGroupV2, resource: Resource) -> list[str]:
    """Make the environment; the output of all commands."""
    uv = task_environment.find_uv()
    Path(str(group.path)).mkdir(parents=True, exist_ok=True)
    log = await _shell(task_environment.install_commands(group, resource, uv))
    group.env_info = await _output(task_environment.freeze_command(group, uv))
    group.venv_size_in_kB, group.venv_file_number = await asyncio.to_thread(
        task_environment.measure, Path(str(group.venv_path))
    )
    return [*log, group.env_info]


async def _read_tasks(group: TaskGroupV2) -> list[TaskV2]:
    python = task_environment.venv_python(group)
    found = await _output(task_environment.find_manifest_command(group))
    if not found:
        raise PackageError(
            f"{group.pkg_name} has no {task_environment.MANIFEST}: it is not a package of "
            "Fractal tasks."
        )
    path = Path(found)
    manifest = await asyncio.to_thread(task_environment.read_manifest, path)
    return task_environment.tasks_of(manifest, python, path.parent, str(group.version))


async def _shell(commands: Sequence[str]) -> list[str]:
    """Run shell commands, with their output in the Prefect log; the lines of their output.

    Raises:
        PackageError: one failed; with the end of its output.
    """
    operation = ShellOperation(commands=["set -e", "exec 2>&1", *commands], log_prefix=None)
    async with operation:
        process = await operation.atrigger()
        try:
            await process.await_for_completion()
        except RuntimeError as error:
            output = await process.afetch_result()
            told = "\n".join(output[-_LOG_LINES_TOLD:])
            raise PackageError(f"{' && '.join(commands)} failed:\n{told}") from error
        lines: list[str] = await process.afetch_result()
        return lines


async def _output(command: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        PackageError: it failed; with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise PackageError(f"{' '.join(command)} failed:\n{errors.decode(errors='replace')}")
    return output.decode().strip()
