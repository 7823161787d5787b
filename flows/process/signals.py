"""The signals by which a worker stops a process, and the exit codes with which processes end."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

# Not SIGTERM: Prefect takes it for a crash if it comes before the flow has begun. A process that
# has no handler for SIGUSR1 yet just ends, and the worker sees that its flow run is cancelled.
STOP_SIGNAL = signal.SIGUSR1

# The process left its job for another process to continue; it found another process running the
# job; its flow run is paused.
EXIT_INTERRUPTED, EXIT_SUPERFLUOUS, EXIT_PAUSED = 75, 76, 77


def leave(exit_code: int) -> NoReturn:
    """End this process at once, as a crash would: its flow run and its job stay as they are."""
    os._exit(exit_code)


@contextmanager
def on_signals(handlers: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """During this block, call the handlers of these signals in the event loop."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # what ends by itself is let end
