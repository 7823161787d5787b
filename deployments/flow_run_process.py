"""Starts a process for each flow run, forked from a server that has imported everything.

Importing Prefect and the flows takes seconds, forking a process that has done so, milliseconds.
"""

import asyncio
import atexit
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
from contextlib import ExitStack
from multiprocessing.context import ForkServerProcess
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

from flows.engine.work_pools import ENTRYPOINT_VARIABLE
from flows.process.signals import EXIT_INTERRUPTED, leave, on_signals

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_PR_SET_PDEATHSIG = 1
_RETRY_SECONDS = 1.0
_OF_HOOKS = ("Running hook ", "Hook ")
_PRELOAD = ["deployments.preload"]  # imported once, by the server

_context = multiprocessing.get_context("forkserver")


class _WithoutHooks(logging.Filter):
    """Drops log records about running hooks, which do not help readers of a job's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or not str(record.msg).startswith(_OF_HOOKS)


def start_server() -> None:
    """Start the server that forks, so that the first flow run does not wait for its imports."""
    from multiprocessing import forkserver

    _context.set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()


def start_flow_run(flow_run_id: str, environment: dict[str, str]) -> ForkServerProcess:
    """Start the process of a flow run. Its exit code is that of Prefect's engine."""
    process = _context.Process(target=_run, args=(flow_run_id, environment))
    process.start()
    return process


def _run(flow_run_id: str, environment: dict[str, str]) -> None:
    from prefect.engine import handle_engine_signals

    os.setsid()  # signals to the worker's terminal must not reach its flow runs
    _end_with_the_worker()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    for kind in ("flow_runs", "task_runs"):
        logging.getLogger(f"prefect.{kind}").addFilter(_WithoutHooks())
    try:
        with handle_engine_signals(UUID(flow_run_id)):
            asyncio.run(run_flow(UUID(flow_run_id)))
    finally:
        # Prefect sends its last logs and events in exit functions, which a forked process does not
        # run.
        atexit._run_exitfuncs()


def _end_with_the_worker() -> None:
    """Make the kernel send SIGTERM if the server dies; it dies with the worker, e.g. after SIGKILL.

    The next worker continues the flow run. A process without a worker could not be told to stop.
    """
    from deployments.preload import SERVER_PID  # the value from the server, which has imported this

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != SERVER_PID:  # the server died earlier, so no signal will come
        leave(EXIT_INTERRUPTED)


async def run_flow(flow_run_id: UUID) -> None:
    """Do what `python -m prefect.engine` does, in one event loop and with one client."""
    from prefect.context import AsyncClientContext
    from prefect.flow_engine import run_flow_async
    from prefect.flows import Flow, load_flow_from_entrypoint

    async with AsyncClientContext.get_or_create() as context:
        flow_run = await context.client.read_flow_run(flow_run_id)
        have_states_wait(context.client)
        await _wait_for_its_time(flow_run)
        flow: Flow[..., Any] = load_flow_from_entrypoint(
            os.environ[ENTRYPOINT_VARIABLE], use_placeholder_flow=False
        )
        # For flow runs of a deployment, Prefect waits for a connection over which it would hear of
        # suspensions. These flows do not use it, so the wait of 0.2 s is avoided.
        flow_run.deployment_id = None
        await run_flow_async(
            flow, flow_run=flow_run, parameters=flow_run.parameters, return_type="state"
        )


async def _wait_for_its_time(flow_run: "FlowRun") -> None:
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
