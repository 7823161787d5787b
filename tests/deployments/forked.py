"""What tests have forked: a program that does what its argument says."""

import multiprocessing
import os
import signal
import sys
import time

from deployments import fork_server
from deployments.services import python_module


def main() -> None:
    what = sys.argv[1]
    if what == "tell":
        print(os.environ.get("GREETING"), "HOME" in os.environ, os.getsid(0) == os.getpid())
        print(sys.argv[1:], repr(sys.stdin.read()), fork_server.inherited)
        print("an error", file=sys.stderr)
    elif what == "name":
        print(multiprocessing.current_process().name)
    elif what == "exit":
        sys.exit(int(sys.argv[2]))
    elif what == "raise":
        raise ValueError("of a program")
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "knows":
        sys.exit(int(sys.argv[2] not in sys.modules))
    elif what == "until told":
        sys.stdin.read()
    elif what == "fork":
        assert fork_server.inherited is not None
        command = python_module(__name__, "exit", "7")
        sys.exit(fork_server.inherited.fork(command, os.environ).wait(30))
    elif what == "server":
        print(fork_server.server_pid == os.getppid(), flush=True)
        time.sleep(60)
