"""A program that executes flow runs, as a worker's processes would, and crashes at given points.

It reads lines `FLOW_RUN_ID before|after MODULE:FUNCTION`, forks a process for each, which kills
itself at that call, and prints how the process ended.
"""

import asyncio
import importlib
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any
from uuid import UUID


class Crasher:
    """Executes flow runs up to a point."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def execute(self, flow_run_id: str, point: str) -> int:
        """Execute a flow run up to a point; the exit code is minus SIGKILL, if it was reached."""
        assert self._process.stdin
        assert self._process.stdout
        print(flow_run_id, point, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def crasher(environment: Mapping[str, str]) -> Iterator[Crasher]:
    """A crasher for the flow runs of a stack with this environment."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.flows.job.crash"],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Crasher(process)


def main() -> None:
    import deployments.preload  # noqa: F401  # once for all
    from flows.engine.publication import ENTRYPOINTS
    from flows.engine.work_pools import DEPLOYMENT_VARIABLE, ENTRYPOINT_VARIABLE

    os.environ[ENTRYPOINT_VARIABLE] = ENTRYPOINTS["run-job"]
    os.environ[DEPLOYMENT_VARIABLE] = "local"
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            flow_run_id, when, where = line.split()
            _execute(UUID(flow_run_id), when, where)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _execute(flow_run_id: UUID, when: str, where: str) -> None:
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _crash_at(when, where)
        asyncio.run(_run(flow_run_id))
    finally:
        os._exit(1)


async def _run(flow_run_id: UUID) -> None:
    from prefect.client.orchestration import get_client

    from deployments.flow_run_process import run_flow

    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
    await run_flow(flow_run)


def _crash_at(when: str, where: str) -> None:
    module_name, _, path = where.partition(":")
    owner = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, _crashing(getattr(owner, name), when))


def _crashing(function: Callable[..., Any], when: str) -> Callable[..., Any]:
    @wraps(function)
    def before(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @wraps(function)
    async def after_awaiting(*args: Any, **kwargs: Any) -> None:
        await function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    @wraps(function)
    def after(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "before":
        return before
    return after_awaiting if inspect.iscoroutinefunction(function) else after


if __name__ == "__main__":
    main()
