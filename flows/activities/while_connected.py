"""Run a shell script as long as somebody listens: `python while_connected.py SCRIPT`.

When standard input ends, as it does with an SSH connection, the script and all that it started are
killed. This program is sent as the text of `python -c`: it is one file, needs the standard library
only, and runs with Python 3.8 and newer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main(script: str) -> None:
    process = subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    threading.Thread(target=kill_at_end_of_input, args=(process.pid,), daemon=True).start()
    code = process.wait()
    os._exit(code if code >= 0 else 128 - code)  # without waiting for the thread


def kill_at_end_of_input(group: int) -> None:
    while os.read(0, 4096):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
