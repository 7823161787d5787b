"""The process of a flow run, which is forked from a server that has imported everything."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.events.related import RESOURCE_CACHE
from prefect.settings import get_current_settings
from prefect.settings.models.api import APISettings

from deployments import fork_server
from deployments.fork_server import ForkedProcess, ForkServer, ForkServerGoneError
from deployments.plain_logging import log_without_colours
from deployments.services import python_module
from flows.engine.work_pools import DEPLOYMENT_VARIABLE, ENTRYPOINT_VARIABLE
from flows.process.signals import EXIT_INTERRUPTED, leave, on_signals
from flows.reports.artifacts import all_shown

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.flows import Flow

_PR_SET_PDEATHSIG = 1
_RETRY_SECONDS = 1.0
_RETRIES = 2
_OF_HOOKS = ("Running hook ", "Hook ")
_PRELOAD = ["deployments.preload", "deployments.rehearsal"]


class FlowRunServer:
    """Forks the processes of a worker's flow runs, from a server that ends with the worker."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._told_by_prefect = get_current_settings().to_environment_variables(exclude_unset=True)
        self._server = self._begin()

    def start(self, flow_run: FlowRun, environment: dict[str, str]) -> ForkedProcess:
        """Start the process of a flow run. Its exit code is that of Prefect's engine."""
        # Prefect writes its settings in its own way, e.g. False for false. To read them again
        # takes longer than all else.
        told = environment.items() - self._told_by_prefect.items()
        environment = {**self._environment, **dict(told)}
        try:
            process = self._fork(flow_run.id, environment)
        except ForkServerGoneError:
            self._server = self._begin()
            process = self._fork(flow_run.id, environment)
        assert process.stdin is not None  # as of all that have a pipe
        with suppress(BrokenPipeError), process.stdin as pipe:  # it may have ended already
            pipe.write(flow_run.model_dump_json().encode())
        return process

    def _fork(self, flow_run_id: UUID, environment: dict[str, str]) -> ForkedProcess:
        command = python_module(__name__, str(flow_run_id))
        return self._server.fork(command, environment, stdin=subprocess.PIPE)

    def _begin(self) -> ForkServer:
        return ForkServer.start(_PRELOAD, self._environment, forked_from=fork_server.inherited)


class Clients(NamedTuple):
    """Clients of Prefect that nobody has used yet, and the settings that they were made for."""

    settings: APISettings
    asynchronous: AsyncClientContext
    synchronous: SyncClientContext


@cache
def clients_before_fork() -> Clients:
    """Clients that each fork finds made: to make one takes long, as it reads all certificates."""
    return Clients(get_current_settings().api, AsyncClientContext(), SyncClientContext())


def _clients() -> Clients:
    """The clients of this process."""
    if clients_before_fork().settings != get_current_settings().api:
        clients_before_fork.cache_clear()
    return clients_before_fork()


class _WithoutHooks(logging.Filter):
    """Drops log records about running hooks, which do not help readers of a job's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or not str(record.msg).startswith(_OF_HOOKS)


def main() -> None:
    """Run the flow run that stands in the standard input; the argument names it."""
    from prefect.engine import handle_engine_signals

    _end_with_the_worker()
    _retry_less()
    flow_run = FlowRun.model_validate_json(sys.stdin.buffer.read())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log_without_colours(logging.getLogger())
    for kind in ("flow_runs", "task_runs"):
        logging.getLogger(f"prefect.{kind}").addFilter(_WithoutHooks())
    with handle_engine_signals(flow_run.id):
        asyncio.run(run_flow(flow_run))


def _end_with_the_worker() -> None:
    """Make the kernel send SIGTERM if the server dies; it dies with the worker, e.g. after SIGKILL.

    The next worker continues the flow run. A process without a worker could not be told to stop.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != fork_server.server_pid:  # the server died earlier, so no signal will come
        leave(EXIT_INTERRUPTED)


def _retry_less() -> None:
    """Try calls of the Prefect API without an answer twice more, unless it is set otherwise.

    What must not be lost is tried for longer. A variable would set it, too; but then the process
    from which all flow runs are forked would read all settings again, and keep 7 MB for that.
    """
    client = get_current_settings().client
    if "max_retries" not in client.model_fields_set:
        client.max_retries = _RETRIES


async def run_flow(flow_run: FlowRun) -> None:
    """Do what `python -m prefect.engine` does, in one event loop and with one client."""
    from prefect.flow_engine import run_flow_async
    from prefect.flows import Flow, load_flow_from_entrypoint

    clients = _clients()
    async with AsyncExitStack() as contexts:
        contexts.enter_context(clients.synchronous)
        client = (await contexts.enter_async_context(clients.asynchronous)).client
        spare_questions(client, flow_run)
        have_states_wait(client)
        await _wait_for_its_time(flow_run)
        flow: Flow[..., Any] = load_flow_from_entrypoint(
            os.environ[ENTRYPOINT_VARIABLE], use_placeholder_flow=False
        )
        _know_related_resources(flow_run, flow)
        # For flow runs of a deployment, Prefect waits for a connection over which it would hear of
        # suspensions. These flows do not use it, so the wait of 0.2 s is avoided. Once it runs, the
        # flow run has its deployment again: see `spare_questions`.
        flow_run.deployment_id = None
        await run_flow_async(
            flow, flow_run=flow_run, parameters=flow_run.parameters, return_type="state"
        )
        await all_shown()


def spare_questions(client: "PrefectClient", flow_run: FlowRun) -> None:
    """Let the flow engine find here what it would ask Prefect for when a flow run begins.

    It reads the flow run again once that is Running, of which it keeps the state itself. Before, it
    tells the policy of retries, which these flows do not have.
    """
    read, update = client.read_flow_run, client.update_flow_run
    known = {"deployment_id": flow_run.deployment_id, "run_count": flow_run.run_count + 1}

    async def read_flow_run(flow_run_id: UUID) -> FlowRun:
        if flow_run_id != flow_run.id:
            return await read(flow_run_id)
        return flow_run.model_copy(update=known)

    async def update_flow_run(flow_run_id: UUID, **values: Any) -> Any:
        if "empirical_policy" not in values:
            return await update(flow_run_id, **values)
        return None

    vars(client).update(read_flow_run=read_flow_run, update_flow_run=update_flow_run)


def _know_related_resources(flow_run: FlowRun, flow: "Flow[..., Any]") -> None:
    """Let Prefect find what its events of a flow run name, instead of asking for each."""
    known = {
        f"flow.{flow_run.flow_id}": (flow_run.flow_id, flow.name),
        f"deployment.{flow_run.deployment_id}": (
            flow_run.deployment_id,
            os.environ[DEPLOYMENT_VARIABLE],
        ),
        f"work-queue.{flow_run.work_queue_id}": (flow_run.work_queue_id, flow_run.work_queue_name),
        f"work-pool.{flow_run.work_pool_name}": (flow_run.work_pool_id, flow_run.work_pool_name),
    }
    for key, (resource_id, name) in known.items():
        if name is None:  # of a queue that is not its deployment's
            continue
        kind, _ = key.split(".", 1)
        found = {"kind": kind, "object": SimpleNamespace(id=resource_id, name=name)}
        entry: Any = found, datetime.now(UTC)
        RESOURCE_CACHE[key] = entry


async def _wait_for_its_time(flow_run: FlowRun) -> None:
    """Wait here until a flow run is due: Prefect rounds the rest of its own wait to a second, and
    lets it begin up to half a second early."""
    due = flow_run.state.state_details.scheduled_time if flow_run.state else None
    if due is not None:
        await asyncio.sleep(due.timestamp() - time.time())


def have_states_wait(client: "PrefectClient") -> None:
    """Make changes of flow runs' states wait for Prefect, however long it is away.

    Prefect's client gives up after some tries. The flow engine would take that for an error of the
    flow, so a job that is done would fail. SIGTERM ends the wait: another process will continue.
    """
    from prefect.exceptions import PrefectHTTPStatusError

    set_state = client.set_flow_run_state

    async def set_state_patiently(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as waiting:
            while True:
                try:
                    return await set_state(*args, **kwargs)
                except httpx.TransportError:
                    pass
                except PrefectHTTPStatusError as error:
                    if not error.response.is_server_error:
                        raise
                waiting.enter_context(on_signals({signal.SIGTERM: _leave_interrupted}))
                await asyncio.sleep(_RETRY_SECONDS)

    vars(client)["set_flow_run_state"] = set_state_patiently


def _leave_interrupted() -> None:
    leave(EXIT_INTERRUPTED)
