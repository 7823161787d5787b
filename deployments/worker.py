"""The Prefect worker of a resource: starts the flow runs of its work pool, and stops them."""

import asyncio
import inspect
import json
import logging
import math
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import closing, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
from anyio.abc import TaskStatus
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import InfrastructureNotFound, PrefectHTTPStatusError
from prefect.flows import Flow, load_flow_from_flow_run
from prefect.states import Cancelled, Crashed
from prefect.workers.base import BaseVariables, BaseWorker, BaseWorkerResult
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from deployments.flow_run_process import FlowRunServer
from deployments.fork_server import ForkedProcess
from flows.activities.activity import goes_on, take_up_again
from flows.engine.client import Engine, EngineError, open_engine
from flows.engine.work_pools import WORKER_TYPES, JobConfiguration
from flows.job.run import RUNNER_CONFIG_VARIABLE
from flows.launchers.slurm import queue
from flows.process.signals import EXIT_INTERRUPTED, EXIT_PAUSED, EXIT_SUPERFLUOUS, STOP_SIGNAL
from flows.process.wakeups import Wakeups
from flows.records.waiting import some_are_to_stop, something_waits
from flows.watchers.jobs import Reconciler
from flows.watchers.missed import MissedOccurrences
from flows.watchers.of_resource import watchers_of
from flows.watchers.resource import ResourceDeletedError, ResourceKeeper
from flows.watchers.signs_of_life import SignsOfLife
from flows.watchers.turns import Turns, limits_of
from flows.watchers.watcher import AWAY, Outages, Watcher
from fractal_models.database import open_database, saved_id
from fractal_models.settings import Settings
from fractal_models.tables import Resource

logger = logging.getLogger(__name__)

# Seconds that a flow run has, once stopped, to end its units and record them; then it is killed.
_GRACE_SECONDS = 60
_QUERY_SECONDS = 0.5
# Prefect is asked for flow runs so often only while something waits here for its process, and for
# stops only while a job here is to stop. What began in Prefect itself, or is stopped there, is
# found later; occurrences of schedules are given seconds ahead.
_SELDOM_SECONDS = 2.0
# A job that found the database away tries again after this time.
_RETRY_SECONDS = 5.0


# The deployment that was read while a flow run is started, by its id.
_read: ContextVar[dict[UUID | None, Any]] = ContextVar("read")


class WorkerResult(BaseWorkerResult):
    """The exit code of a flow run's process."""


class LocalWorker(BaseWorker[JobConfiguration, BaseVariables, WorkerResult]):
    """Runs each flow run in a process that is forked from a preloaded server."""

    type, job_configuration_variables, job_configuration = WORKER_TYPES["local"]
    _description = "Runs Fractal jobs on this machine."
    _display_name = "Fractal local"

    # The processes of running flow runs, by process id; those that were told to stop; those that
    # must stop, and since when (on the monotonic clock).
    _processes: dict[int, tuple[UUID, ForkedProcess]]
    _stopping: set[int]
    _to_stop: dict[int, float]

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        engine: Engine,
        reconciler: Reconciler,
        pool: str,
        outages: Outages,
        turns: Turns,
        wakeups: Wakeups,
        *,
        stop_seconds: float,
        max_restarts: int,
    ) -> None:
        super().__init__(
            work_pool_name=pool, name=socket.gethostname(), create_pool_if_not_found=False
        )
        self.sessions = sessions
        self.engine = engine
        self.reconciler = reconciler
        self.missed = MissedOccurrences(engine)
        self.outages = outages
        self.turns = turns
        self.wakeups = wakeups
        self.stop_seconds = stop_seconds
        self.max_restarts = max_restarts
        self._processes, self._stopping, self._to_stop = {}, set(), {}
        self._asked = self._asked_for_stops = -math.inf
        self._polled = time.monotonic()

    async def setup(self) -> None:
        """Prepare to start flow runs."""
        self._fork_server = await asyncio.to_thread(FlowRunServer)
        await super().setup()
        _read_once(self.client)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """One poll, when woken: stop flow runs that were cancelled, and start those that are due.

        While Prefect or the database is away, nothing is done. (An error would make Prefect's loop
        wait for minutes and then give up.)
        """
        await self.wakeups.wait(_QUERY_SECONDS)
        try:
            await self._stop_cancelled()
            begun = await super().get_and_submit_flow_runs()
        except AWAY as error:
            self.outages.met("flow runs", error)
            return []
        self.outages.survived("flow runs")
        self._polled = time.monotonic()
        return begun

    def silence(self) -> float:
        """For how many seconds it could start no flow run, because something is away."""
        return time.monotonic() - self._polled

    async def sync_with_backend(self) -> None:
        """Send a heartbeat to Prefect and read the work pool; while Prefect is away, go on."""
        try:
            await super().sync_with_backend()
        except AWAY as error:
            self.outages.met("sign of life", error)
        else:
            self.outages.survived("sign of life")

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """The flow runs to start now.

        Of the occurrences that a schedule has missed, this is only the latest; and only flow runs
        whose turn it is.
        """
        if not await self._is_time_to_ask():
            return []
        found = await super()._get_scheduled_flow_runs()
        begun = self._submitting_flow_run_ids
        left_out = await self.missed.skip(
            [each.flow_run for each in found], begun=begun | self.reconciler.executing
        )
        due = [each.flow_run for each in found if each.flow_run.id not in left_out]
        left_out |= await self.turns.put_off(due, begun | self.reconciler.executing)
        return [each for each in found if each.flow_run.id not in left_out]

    async def _is_time_to_ask(self) -> bool:
        """Whether there may be a flow run to start; from the database, as that takes less."""
        moment = time.monotonic()
        if moment - self._asked < _SELDOM_SECONDS:
            async with self.sessions() as session:
                pool, executing = self._work_pool_name, self.reconciler.executing
                if not await something_waits(session, pool, executing):
                    return False
        self._asked = moment
        return True

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Start a flow run. If Prefect does not answer, the worker goes on."""
        _read.set({})
        try:
            await super()._submit_run(flow_run)
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            logger.warning("Flow run %s could not be started: %r", flow_run.name, error)
            self._submitting_flow_run_ids.discard(flow_run.id)

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Nothing: a flow run names its work pool, which has one worker."""

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Nothing: it takes longer to tell Prefect of this state than to leave it by a fork."""

    async def run(
        self,
        flow_run: FlowRun,
        configuration: JobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> WorkerResult:
        """Run a flow run to its end, in its own process."""
        self._name_its_places(flow_run)
        process = await asyncio.to_thread(
            self._fork_server.start, flow_run, _environment(configuration)
        )
        pid = process.pid
        self._processes[pid] = flow_run.id, process
        self.reconciler.executing.add(flow_run.id)
        if task_status is not None:
            task_status.started(pid)
        left = True
        try:
            await _end_of(process)
            left = False
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
                del self._processes[pid]
                if flow_run.id not in dict(self._processes.values()):
                    self.reconciler.executing.discard(flow_run.id)
                self._stopping.discard(pid)
                self._to_stop.pop(pid, None)
                await self._conclude(flow_run, process.poll(), left=left)
        return WorkerResult(identifier=str(process.pid), status_code=0)

    def _name_its_places(self, flow_run: FlowRun) -> None:
        """Note the names of its pool and queue, which its events tell; Prefect gives only ids."""
        flow_run.work_pool_id, flow_run.work_pool_name = self.work_pool.id, self.work_pool.name
        deployment = _read.get({}).get(flow_run.deployment_id)
        if deployment is not None and deployment.work_queue_id == flow_run.work_queue_id:
            flow_run.work_queue_name = deployment.work_queue_name

    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: JobConfiguration,
        grace_seconds: int = 30,
    ) -> None:
        """End the process of a flow run that has not begun."""
        if int(infrastructure_pid) not in self._processes:
            raise InfrastructureNotFound(f"No flow run here has process {infrastructure_pid}.")
        _, process = self._processes[int(infrastructure_pid)]
        await _end(process, grace_seconds)

    async def _stop_cancelled(self) -> None:
        """Send the stop signal to flow runs that are being cancelled. They end by themselves."""
        running = {
            flow_run_id: pid
            for pid, (flow_run_id, _) in self._processes.items()
            if pid not in self._stopping
        }
        if not running or not await self._is_time_to_stop(running):
            return
        cancelled = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=list(running)),
                state=FlowRunFilterState(
                    type=FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
                ),
            ),
            sort=FlowRunSort.ID_DESC,
            limit=len(running),
        )
        for flow_run in cancelled:
            self._stopping.add(running[flow_run.id])
            self._to_stop.setdefault(running[flow_run.id], time.monotonic())
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(running[flow_run.id], STOP_SIGNAL)

    async def _is_time_to_stop(self, running: Collection[UUID]) -> bool:
        """Whether one of these flow runs may have been told to stop; from the database, too."""
        moment = time.monotonic()
        if moment - self._asked_for_stops < _SELDOM_SECONDS:
            async with self.sessions() as session:
                if not await some_are_to_stop(session, running):
                    return False
        self._asked_for_stops = moment
        return True

    async def kill_what_does_not_stop(self) -> None:
        """Kill the processes that must stop and have not stopped within `stop_seconds`."""
        moment = time.monotonic()
        for pid, (flow_run_id, process) in list(self._processes.items()):
            if flow_run_id in self.reconciler.stopping:
                self._to_stop.setdefault(pid, moment)
            seconds = moment - self._to_stop.get(pid, moment)
            if seconds > self.stop_seconds and process.poll() is None:
                logger.warning(
                    "The process of flow run %s was to stop %.0f s ago, and is killed.",
                    flow_run_id,
                    seconds,
                )
                self.reconciler.process_killed(flow_run_id)
                process.kill()

    async def _conclude(self, flow_run: FlowRun, exit_code: int | None, *, left: bool) -> None:
        """Do what a flow run's process cannot do after its end. `left`: this worker ended it."""
        if "activity_id" in flow_run.parameters:
            await self._end_activity(flow_run, exit_code)
        elif left or exit_code == EXIT_INTERRUPTED:
            if left:
                logger.warning("%s is left, and goes on with the next worker.", flow_run.name)
            await self._go_on(flow_run, 0.0 if left else _RETRY_SECONDS)
        elif exit_code not in (EXIT_SUPERFLUOUS, EXIT_PAUSED):
            # The reconciler handles it as if this worker had died too, but without waiting.
            self.reconciler.process_ended(flow_run.id)

    async def _go_on(self, flow_run: FlowRun, delay_seconds: float) -> None:
        """Restart an interrupted job soon. If Prefect is away, the reconciler does it later."""
        try:
            await self.engine.go_on(flow_run.id, "Interrupted.", delay_seconds=delay_seconds)
        except EngineError as error:
            logger.warning("%s, which was interrupted, waits for Prefect: %s", flow_run.name, error)
            self.reconciler.process_ended(flow_run.id)

    async def _take_up_again(self, flow_run: FlowRun) -> None:
        """Have an interrupted activity go on soon; a watcher does it if that cannot be now."""
        activity_id = int(flow_run.parameters["activity_id"])
        try:
            async with self.sessions() as session:
                await take_up_again(
                    session, self.engine, activity_id, flow_run, delay_seconds=_RETRY_SECONDS
                )
        except (*AWAY, EngineError) as error:
            logger.warning("%s, which was interrupted, waits: %s", flow_run.name, error)

    async def _end_activity(self, flow_run: FlowRun, exit_code: int | None) -> None:
        """Have an activity go on whose process has died, or end its flow run and run its hooks."""
        flow_run = await self.client.read_flow_run(flow_run.id)
        state = flow_run.state
        if state is None or not state.is_final():
            if goes_on(flow_run, self.max_restarts):
                await self._take_up_again(flow_run)
                return
            stopped = state is not None and state.is_cancelling()
            state = (
                Cancelled(message="The flow run was stopped.")
                if stopped
                else Crashed(message=f"Its process ended unexpectedly, with exit code {exit_code}.")
            )
            await self.client.set_flow_run_state(flow_run.id, state, force=True)
        if not (state.is_cancelled() or state.is_crashed()):
            return
        flow: Flow[..., Any] = await load_flow_from_flow_run(flow_run)
        hooks = flow.on_cancellation_hooks if state.is_cancelled() else flow.on_crashed_hooks
        for hook in hooks or []:
            if inspect.isawaitable(called := hook(flow, flow_run, state)):
                await called


def _read_once(client: PrefectClient) -> None:
    """Have a client read the deployment of a flow run that is started once, not again and again.

    Of a flow only the name is used, which does not change.
    """
    read_deployment, read_flow = client.read_deployment, client.read_flow
    flows: dict[UUID, Any] = {}

    async def deployment(deployment_id: UUID) -> Any:
        return await _known(_read.get({}), deployment_id, read_deployment)

    async def flow(flow_id: UUID) -> Any:
        return await _known(flows, flow_id, read_flow)

    vars(client).update(read_deployment=deployment, read_flow=flow)


async def _known(
    known: dict[Any, Any], wanted: UUID, read: Callable[[UUID], Awaitable[Any]]
) -> Any:
    if wanted not in known:
        known[wanted] = await read(wanted)
    return known[wanted]


class SlurmWorker(LocalWorker):
    """Runs each flow run in a process here; the units run on a SLURM cluster."""

    type, job_configuration_variables, job_configuration = WORKER_TYPES["slurm_sudo"]
    _description = "Runs Fractal jobs on a SLURM cluster."
    _display_name = "Fractal SLURM"


class ProcessesToStop(Watcher):
    """Kills processes of a worker's flow runs that do not stop."""

    def __init__(self, worker: LocalWorker) -> None:
        self._worker = worker

    async def look(self) -> None:
        await self._worker.kill_what_does_not_stop()


async def serve(settings: Settings, find: Callable[[AsyncSession], Awaitable[Resource]]) -> None:
    """Publish a resource in Prefect, and run its flow runs until cancelled or until it is deleted.

    If Prefect is away, this waits for it.

    Raises:
        UnknownResourceError: the resource does not exist.
    """
    async with (
        open_database(settings.async_database_url) as sessions,
        open_engine(settings) as engine,
    ):
        async with sessions() as session:
            resource = await find(session)
        outages = Outages()
        keeper = ResourceKeeper(sessions, engine, resource)
        try:
            await _when_known(keeper, outages)
            await _work(settings, sessions, engine, resource, keeper, outages)
        except* ResourceDeletedError as deleted:
            logger.warning("%s Its worker ends.", deleted.exceptions[0])


async def _when_known(keeper: ResourceKeeper, outages: Outages) -> None:
    """Wait until the resource is published in Prefect."""
    while True:
        try:
            await keeper.look()
        except AWAY as error:
            outages.met("start", error)
            await asyncio.sleep(_QUERY_SECONDS)
        else:
            return outages.survived("start")


async def _work(
    settings: Settings,
    sessions: async_sessionmaker[AsyncSession],
    engine: Engine,
    resource: Resource,
    keeper: ResourceKeeper,
    outages: Outages,
) -> None:
    pool = resource.work_pool
    reconciler = Reconciler(sessions, engine, settings, pool)
    kind = LocalWorker if resource.type == "local" else SlurmWorker
    turns = Turns(sessions, engine, pool, limits_of(settings, resource))
    watchers = watchers_of(sessions, engine, settings, pool, reconciler)
    with closing(Wakeups(settings.async_database_url)) as wakeups:
        worker = kind(
            *(sessions, engine, reconciler, pool, outages, turns, wakeups),
            stop_seconds=settings.stop_seconds,
            max_restarts=settings.max_restarts,
        )
        parts: dict[str, Callable[[], float]] = {
            "worker": worker.silence,
            "reconciler": reconciler.silence,
        }
        if resource.type != "local":
            folder, resource_id = Path(resource.jobs_local_dir), saved_id(resource)
            parts["squeue"] = partial(queue.silence, folder, resource_id)
        signs = SignsOfLife(sessions, pool, parts)
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(each.watch(outages))
                for each in (*watchers, keeper, signs, ProcessesToStop(worker))
            ]
            await worker.start()
            for task in watching:
                task.cancel()


async def _end(process: ForkedProcess, grace_seconds: float = _GRACE_SECONDS) -> None:
    """Wait until a process has ended; if it lives, send SIGTERM, and later SIGKILL."""
    process.terminate()
    with anyio.move_on_after(grace_seconds):
        await _end_of(process)
    process.kill()
    await _end_of(process)


async def _end_of(process: ForkedProcess) -> None:
    """Wait until a process has ended."""
    while process.poll() is None:
        await anyio.wait_readable(process.fileno())
        if process.poll() is None:
            await anyio.sleep(_QUERY_SECONDS)  # its server has ended before it


def _environment(configuration: JobConfiguration) -> dict[str, str]:
    options = configuration.runner_config()
    given = {key: value for key, value in configuration.env.items() if value is not None}
    return given | ({RUNNER_CONFIG_VARIABLE: json.dumps(options)} if options else {})
