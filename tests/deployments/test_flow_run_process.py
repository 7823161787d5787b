"""The process of a flow run: it ends with the server that forked it, and waits for Prefect."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Running

from deployments import flow_run_process
from deployments.flow_run_process import spare_questions
from flows.process.signals import EXIT_INTERRUPTED
from tests.conftest import PREFECT_AWAY

# A server that forks one process, which goes on when the server lives, or has ended. Prints how
# the process ended: it is the child of this script when the server is gone.
_SCRIPT = """
import ctypes, os, signal, sys, time

lives = sys.argv[1] == "lives"
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
if os.fork() == 0:
    from deployments import flow_run_process, fork_server

    fork_server.server_pid = server = os.getpid()
    if (child := os.fork()) != 0:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if lives else 0)
    while not lives and os.getppid() == server:
        time.sleep(0.01)
    flow_run_process._end_with_the_worker()
    os._exit(7)
ended = []
while True:
    try:
        ended.append(os.waitstatus_to_exitcode(os.wait()[1]))
    except ChildProcessError:
        break
print(ended[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a subreaper is Linux's")
@pytest.mark.parametrize(("server", "exit_code"), [("lives", 7), ("is gone", EXIT_INTERRUPTED)])
def test_a_process_whose_server_is_gone_does_not_begin(server: str, exit_code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, server], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == str(exit_code), ended.stderr


class FakeClient:
    """A fake of Prefect's client, to which the server fails to answer a few times."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    async def set_flow_run_state(self, flow_run_id: str, state: str, *, force: bool) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return f"{flow_run_id} is {state}, {force}"


def answer(status: int) -> PrefectHTTPStatusError:
    response = httpx.Response(status, request=httpx.Request("POST", "http://prefect"))
    return PrefectHTTPStatusError("an answer", request=response.request, response=response)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Waits are short, and this process, which is no flow run's, hears SIGTERM afterwards."""
    monkeypatch.setattr(flow_run_process, "_RETRY_SECONDS", 0.01)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


async def tell(client: FakeClient) -> Any:
    flow_run_process.have_states_wait(cast(PrefectClient, client))
    return await client.set_flow_run_state("run", "Completed", force=False)


@pytest.mark.usefixtures("impatient")
async def test_a_state_waits_until_prefect_is_back() -> None:
    away = httpx.ConnectError("away"), httpx.ReadTimeout("slow"), answer(503), answer(500)
    client = FakeClient(*away, *away)
    assert await tell(client) == "run is Completed, False"
    assert client.failures == []


@pytest.mark.usefixtures("impatient")
async def test_a_state_that_prefect_refuses_does_not_wait() -> None:
    client = FakeClient(answer(404), answer(503))
    with pytest.raises(PrefectHTTPStatusError):
        await tell(client)
    assert len(client.failures) == 1


async def test_the_flow_run_is_known_here_with_its_deployment() -> None:
    """An occurrence of a schedule finds by its deployment what it is to do."""
    flow_run = FlowRun(id=uuid4(), flow_id=uuid4(), deployment_id=uuid4(), run_count=2)
    known = {"deployment_id": flow_run.deployment_id, "run_count": 3}
    async with PrefectClient(PREFECT_AWAY) as client:
        spare_questions(client, flow_run)
        flow_run.deployment_id = None
        flow_run.state = Running()
        found = await client.read_flow_run(flow_run.id)
        with pytest.raises(httpx.TransportError):
            await client.read_flow_run(uuid4())

    assert found == flow_run.model_copy(update=known)
