"""The process of a flow run ends with the server that forked it, also if that goes at once."""

import subprocess
import sys

import pytest

from flows.stopping import EXIT_INTERRUPTED

# A server that forks one process, which goes on when the server lives, or has ended. Prints how
# the process ended: it is the child of this script when the server is gone.
_SCRIPT = """
import ctypes, os, signal, sys, time

lives = sys.argv[1] == "lives"
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
if os.fork() == 0:
    from deployments import flow_run_process, preload

    server = os.getpid()
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
