"""Run a shell script as long as somebody listens: `python while_connected.py SCRIPT [LOCK]`.

On SIGTERM, or when standard input ends, as it does with an SSH connection, the script and all that
it started get SIGTERM (srun then ends its job); processes that are left 2 s later are killed.

With the path of a lock, it first waits until no other one runs with that lock: one whose connection
is lost may go on for some time, if the network does not tell it.

This program is sent as the text of `python -c`: it is one file, needs only the standard library,
and runs with Python 3.8 and newer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Callable

GRACE_SECONDS, WAIT_SECONDS = 2.0, 0.2
ending, ended = threading.Event(), threading.Event()


def main(script: str, lock: str | None = None) -> None:
    if lock is not None:
        take(lock)
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


def take(lock: str) -> None:
    """Take a lock, which this process then holds to its end, where the file system has locks."""
    os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(lock), exist_ok=True)
        wait_for(os.open(lock, os.O_RDWR | os.O_CREAT, 0o644))
    except OSError as error:
        print(f"Without a lock, as it cannot be taken: {error}", flush=True)


def wait_for(file: int) -> None:
    """Lock a file when nobody else does; end this process if nobody listens any more."""
    waits = False
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waits:
                print("Waits for the end of what was begun here before.", flush=True)
            waits = True
        if select.select([0], [], [], WAIT_SECONDS)[0] and not os.read(0, 4096):
            sys.exit(128 + signal.SIGTERM)


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
    main(*sys.argv[1:])
