"""The flow `collect-tasks`: installs a task package and reads its tasks from its manifest."""

import asyncio
import logging
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed
from prefect_shell import ShellOperation
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from flows import task_environment
from flows.engine import Engine
from flows.job_lock import lock_activity, locked_activities
from flows.last_words import printable
from flows.stopping import EXIT_INTERRUPTED, STOP_SIGNAL, leave, on_signals
from flows.task_environment import PackageError
from fractal_models.database import open_database
from fractal_models.settings import get_settings
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2, TaskV2
from fractal_models.tables.columns import now

logger = logging.getLogger(__name__)

_LOG_LINES_TOLD = 20
# A process that has just been started takes so long, at most, to take the lock of its activity.
_SECONDS_TO_BEGIN = 10.0
_INTERRUPTED = "The process that did it is gone: collect the package again."


async def undo_collection(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The collection failed, was stopped or crashed: its folder and its task group go."""
    activity_id = int(flow_run.parameters["activity_id"])
    message = (state.message or "").removeprefix("Flow run encountered an exception: ")
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        activity = await session.get(TaskGroupActivityV2, activity_id)
        if activity is not None:
            await undo(session, activity, f"Collection failed. {message}")


async def undo(session: AsyncSession, activity: TaskGroupActivityV2, log: str) -> None:
    """Let a collection that has not ended end as failed, and leave nothing of it; commit."""
    if activity.status not in ("pending", "ongoing"):
        return
    group = await session.get(TaskGroupV2, activity.taskgroupv2_id)
    if group is not None:
        if group.path is not None:
            await asyncio.to_thread(_remove, Path(group.path))
        activity.taskgroupv2_id = None
        await session.delete(group)
    _end(activity, "failed", printable(log))
    await session.commit()


async def undo_interrupted(session: AsyncSession, engine: Engine, resource_name: str) -> None:
    """Undo the collections of a resource that were begun, and that nobody executes any more."""
    found = await session.exec(
        select(TaskGroupActivityV2)
        .join(TaskGroupV2, col(TaskGroupV2.id) == col(TaskGroupActivityV2.taskgroupv2_id))
        .join(Resource, col(Resource.id) == col(TaskGroupV2.resource_id))
        .where(
            col(TaskGroupActivityV2.status).in_(("pending", "ongoing")),
            col(TaskGroupActivityV2.flow_run_id).is_not(None),
            Resource.name == resource_name,
        )
        .with_for_update(of=TaskGroupActivityV2, skip_locked=True)
    )
    locked = await locked_activities(session)
    idle = {a.flow_run_id: a for a in found if a.id not in locked and a.flow_run_id is not None}
    flow_runs = await engine.flow_runs(list(idle))
    for flow_run_id, activity in idle.items():
        flow_run = flow_runs.get(flow_run_id)
        state = flow_run.state if flow_run is not None else None
        if state is not None and not state.is_final():
            age = (now() - state.timestamp).total_seconds()
            if state.is_scheduled() or age < _SECONDS_TO_BEGIN:
                continue
            await engine.end(flow_run_id, Crashed(message=_INTERRUPTED))
        logger.warning("Collection of %s: %s", activity.pkg_name, _INTERRUPTED)
        await undo(session, activity, f"Collection failed. {_INTERRUPTED}")


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
        activity = await session.get_one(TaskGroupActivityV2, activity_id)
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
