"""Run a shell script as long as somebody listens: `python while_connected.py SCRIPT`.

On SIGTERM, or when standard input ends, as it does with an SSH connection, the script and all that
it started get SIGTERM (srun then ends its job); processes that are left 2 s later are killed.

This program is sent as the text of `python -c`: it is one file, needs only the standard library,
and runs with Python 3.8 and newer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Callable

GRACE_SECONDS = 2.0
ending, ended = threading.Event(), threading.Event()


def main(script: str) -> None:
    process = subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: start(end, process.pid))
    start(end_with_input, process.pid)
    code = process.wait()
    if ending.is_set():
        ended.wait()
    os._exit(code if code >= 0 else 128 - code)  # without waiting for the threads


def start(work: Callable[[int], None], group: int) -> None:
    threading.Thread(target=work, args=(group,), daemon=True).start()


def end_with_input(group: int) -> None:
    while os.read(0, 4096):
        pass
    end(group)


def end(group: int) -> None:
    ending.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            os.killpg(group, 0)  # fails when nothing is left
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
    ended.set()


if __name__ == "__main__":
    main(sys.argv[1])
