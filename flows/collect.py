"""The flow `collect-tasks`: installs a task package and reads its tasks from its manifest."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect_shell import ShellOperation

from flows import task_environment
from flows.interrupted_collections import OPEN, undo
from flows.job_lock import lock_activity
from flows.stopping import EXIT_INTERRUPTED, STOP_SIGNAL, leave, on_signals
from flows.task_environment import PackageError
from fractal_models.database import open_database
from fractal_models.settings import get_settings
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2, TaskV2
from fractal_models.tables.columns import now

_LOG_LINES_TOLD = 20


class InterruptedCollectionError(Exception):
    """The collection was given up for interrupted before its process began."""


async def undo_collection(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The collection failed, was stopped or crashed: its folder and its task group go."""
    activity_id = int(flow_run.parameters["activity_id"])
    message = (state.message or "").removeprefix("Flow run encountered an exception: ")
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        await undo(session, activity_id, f"Collection failed. {message}")


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
    url = get_settings().async_database_url
    await lock_activity(url, activity_id, lambda _: leave(EXIT_INTERRUPTED))
    async with open_database(url) as sessions, sessions() as session:
        activity = await session.get_one(TaskGroupActivityV2, activity_id, with_for_update=True)
        if activity.status not in OPEN:
            raise InterruptedCollectionError("This collection has been undone: it began too late.")
        group = await session.get_one(TaskGroupV2, activity.taskgroupv2_id)
        resource = await session.get_one(Resource, group.resource_id)
        activity.status = "ongoing"
        await session.commit()
        installation = asyncio.ensure_future(_install(group, resource))
        stop = installation.cancel
        with on_signals({STOP_SIGNAL: stop, signal.SIGTERM: stop}):
            log = await installation
        group.task_list = await _read_tasks(group)
        group.active = True
        activity.status = "OK"
        activity.timestamp_ended = now()
        activity.log = "\n".join(log)
        await session.commit()


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
