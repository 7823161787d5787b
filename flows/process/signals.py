"""How a worker tells a process to stop, and with which exit codes processes end."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

# Not SIGTERM, which Prefect takes for a crash when it comes before the flow has begun. A process
# that is not yet prepared for this one just ends, and its flow run is seen to be cancelled.
STOP_SIGNAL = signal.SIGUSR1

# Of a process that left its job to be taken up again, of one that found another at work, and of
# one whose flow run is paused.
EXIT_INTERRUPTED, EXIT_SUPERFLUOUS, EXIT_PAUSED = 75, 76, 77


def leave(exit_code: int) -> NoReturn:
    """End this process at once, as a crash would: neither its flow run nor its job is touched."""
    os._exit(exit_code)


@contextmanager
def on_signals(handlers: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """Within this block these signals call their handlers in the event loop."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # what ends by itself is let end
