"""A process for one flow run, forked from a server that has everything imported.

Importing Prefect and the flows takes seconds; forking a process that has done so, milliseconds.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing.context import ForkServerProcess

# Imported once, by the server. `__main__` is there because every fork would import it otherwise.
_PRELOAD = ["__main__", "deployments.preload"]

_context = multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Start the server that forks, so that the first flow run need not wait for its imports."""
    from multiprocessing import forkserver

    _context.set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()


def start_flow_run(flow_run_id: str, environment: dict[str, str]) -> ForkServerProcess:
    """Start the process of a flow run; its exit code is that of Prefect's engine."""
    process = _context.Process(target=_run, args=(flow_run_id, environment))
    process.start()
    return process


def _run(flow_run_id: str, environment: dict[str, str]) -> None:
    os.setsid()  # signals to the worker's terminal are not for its flow runs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    sys.argv = ["prefect.engine", flow_run_id]
    sys.modules.pop("prefect.engine", None)  # it is run, not imported
    try:
        runpy.run_module("prefect.engine", run_name="__main__")
    finally:
        # Prefect sends its last logs and events at exit; a forked process leaves that out.
        atexit._run_exitfuncs()
