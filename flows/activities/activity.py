"""An activity of a task group: it is executed to its end, also if its process dies, or undone."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec

from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Failed
from sqlmodel.ext.asyncio.session import AsyncSession

from flows.activities.environment import TaskEnvironment, environment_of
from flows.activities.site import open_site
from flows.engine.client import Engine
from flows.engine.descriptions import DESCRIPTIONS
from flows.engine.results import WITHOUT_RESULTS
from flows.process.lock import LockedError, lock_activity, locked_activities
from flows.process.signals import (
    EXIT_INTERRUPTED,
    EXIT_SUPERFLUOUS,
    STOP_SIGNAL,
    leave,
    on_signals,
)
from flows.process.transport import CommandError, TransportError
from flows.reports.sentences import told
from flows.reports.text import printable
from fractal_models.database import open_database, release
from fractal_models.errors import FractalError, ProfileError
from fractal_models.settings import get_settings
from fractal_models.tables import Resource, TaskGroupActivityV2, TaskGroupV2
from fractal_models.tables.columns import now

OPEN = ("pending", "ongoing")

_Parameters = ParamSpec("_Parameters")
_FlowFunction = Callable[_Parameters, Coroutine[Any, Any, None]]

_TAKEN_UP = "The process that did it is gone; another one does it from its beginning."

# By action: what failed, and the state of the task group after that.
_FAILED = {
    "collect": ("Collection failed.", "Nothing of it is kept."),
    "deactivate": (
        "Deactivation failed.",
        "The task group is inactive all the same: reactivating it makes its environment anew.",
    ),
    "reactivate": ("Reactivation failed.", "The task group stays inactive."),
    "reset": ("Reset failed.", "The task group stays inactive, and as it was recorded before."),
    "delete": (
        "Deletion failed.",
        "The task group is inactive, and what is left of its folder is there: delete it again.",
    ),
}


class InterruptedActivityError(FractalError):
    """The activity was undone as interrupted before its process began."""


async def execute(
    activity_id: int, work: Callable[[TaskEnvironment], Awaitable[list[str]]]
) -> None:
    """Do the work of an open activity, and record its changes; `work` returns the activity's log.

    After a deletion, the row of the task group is deleted here, and the activity stays without it.
    A signal to stop cancels the work; at SIGTERM this process leaves it to another one, which does
    it from its beginning. If the work fails, nothing is recorded: see `undo`.

    Raises:
        InterruptedActivityError: the activity is not open any more.
        ProfileError, TransportError, CommandError, PackageError: the work failed.
    """
    url = get_settings().async_database_url
    try:
        await lock_activity(url, activity_id, lambda _: leave(EXIT_INTERRUPTED))
    except LockedError:
        leave(EXIT_SUPERFLUOUS)
    async with open_database(url) as sessions, sessions() as session:
        activity = await session.get_one(TaskGroupActivityV2, activity_id, with_for_update=True)
        if activity.status == "OK":
            return  # the process that did it could not tell Prefect
        if activity.status not in OPEN:
            raise InterruptedActivityError("This activity has been undone: it began too late.")
        group = await session.get_one(TaskGroupV2, activity.taskgroupv2_id)
        resource = await session.get_one(Resource, group.resource_id)
        activity.status = "ongoing"
        await session.commit()
        async with open_site(session, group) as site:
            await release(session)
            working = asyncio.ensure_future(work(environment_of(group, resource, site)))
            with on_signals(
                {STOP_SIGNAL: working.cancel, signal.SIGTERM: partial(leave, EXIT_INTERRUPTED)}
            ):
                log = await working
        if activity.action == "delete":
            activity.taskgroupv2_id = None
            await session.delete(group)
        activity.status = "OK"
        activity.timestamp_ended = now()
        _tell(activity, *log)
        await session.commit()


def _tell(activity: TaskGroupActivityV2, *lines: str) -> None:
    """Add lines to the log of an activity."""
    before = [activity.log] if activity.log else []
    activity.log = printable("\n".join([*before, *lines]))


def activity_flow(
    name: str,
) -> Callable[[_FlowFunction[_Parameters]], Flow[_Parameters, Coroutine[Any, Any, None]]]:
    """Make the flow of one kind of activity; `activity_id` is the id of a pending activity.

    A failed flow run has a sentence as its message. If the error may be a fault of the platform,
    its traceback is in the worker's log.
    """

    def made(function: _FlowFunction[_Parameters]) -> Flow[_Parameters, Coroutine[Any, Any, None]]:
        @wraps(function)
        async def telling(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Any:
            try:
                await function(*args, **kwargs)
            except Exception as error:
                return Failed(message=told(error, f"{name} failed."))

        return flow(
            name=name,
            description=DESCRIPTIONS[name],
            on_failure=[undo_activity],
            on_cancellation=[undo_activity],
            on_crashed=[undo_activity],
            **WITHOUT_RESULTS,
        )(telling)

    return made


async def undo_activity(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """State hook: undoes an activity whose flow run failed, was stopped or crashed."""
    activity_id = int(flow_run.parameters["activity_id"])
    why = (state.message or "").removeprefix("Flow run encountered an exception: ")
    async with (
        open_database(get_settings().async_database_url) as sessions,
        sessions() as session,
    ):
        await undo(session, activity_id, why)


def goes_on(flow_run: FlowRun, max_restarts: int) -> bool:
    """Whether an activity whose process has died is taken up again; if not, it is to be undone.

    That is if it was told to stop, has ended in Prefect, or was begun again `max_restarts` times.
    """
    state = flow_run.state
    lost = state is None or state.is_running() or state.is_pending() or state.is_crashed()
    return lost and flow_run.run_count <= max_restarts


async def take_up_again(
    session: AsyncSession,
    engine: Engine,
    activity_id: int,
    flow_run: FlowRun,
    *,
    delay_seconds: float = 0.0,
) -> bool:
    """Have an activity whose process has died done by another one, from its beginning.

    Nothing that the first one made is used but what packages the caches have. Returns False if the
    activity has ended, if a process executes it after all, or if it was told to stop meanwhile.

    Raises:
        EngineError: Prefect is away, or refuses it.
    """
    activity = await _open(session, activity_id, idle=True)
    if activity is None:
        return False
    if not await engine.restart(flow_run, _TAKEN_UP, delay_seconds=delay_seconds):
        return False
    _tell(activity, _TAKEN_UP)
    await session.commit()
    return True


async def undo(session: AsyncSession, activity_id: int, why: str, *, idle: bool = False) -> bool:
    """End an open activity as failed, and remove what it made; commit.

    Returns False if there is nothing to undo; with `idle`, also if a process executes the activity
    after all. The activity's row is locked until the end, so that no other worker undoes it too.
    """
    activity = await _open(session, activity_id, idle=idle)
    if activity is None:
        return False
    what, consequence = _FAILED[activity.action]
    log = [what, why, consequence]
    group = await session.get(TaskGroupV2, activity.taskgroupv2_id)
    if group is not None:
        log += await _take_back(session, group, activity.action)
        if activity.action == "collect":
            activity.taskgroupv2_id = None
            await session.delete(group)
    activity.status = "failed"
    activity.timestamp_ended = now()
    _tell(activity, " ".join(log))
    await session.commit()
    return True


async def _open(
    session: AsyncSession, activity_id: int, *, idle: bool
) -> TaskGroupActivityV2 | None:
    """An open activity, its row locked; with `idle`, only if no process executes it."""
    # With `idle`, a row that another process has locked is not waited for: somebody is at it.
    lock = {"skip_locked": idle}
    activity = await session.get(TaskGroupActivityV2, activity_id, with_for_update=lock)
    if activity is None or activity.status not in OPEN:
        return None
    return None if idle and activity_id in await locked_activities(session) else activity


async def _take_back(session: AsyncSession, group: TaskGroupV2, action: str) -> list[str]:
    """Remove what an activity made, as far as possible. Returns lines for the log."""
    folder = {
        "collect": group.path,
        "reactivate": group.venv_path,
        "reset": group.venv_path,
    }.get(action)
    if folder is None:
        return []
    try:
        async with open_site(session, group) as site:
            await site.remove(folder)
    except (ProfileError, TransportError, CommandError) as error:
        return [f"But its folder {folder} could not be removed, and may still be there: {error}"]
    return []
