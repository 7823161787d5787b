"""How a worker tells the process of a flow run to stop."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Not SIGTERM, which Prefect takes for a crash when it comes before the flow has begun. A process
# that is not yet prepared for this one just ends, and its flow run is seen to be cancelled.
STOP_SIGNAL = signal.SIGUSR1


@contextmanager
def stopped_by_signal(stop: Callable[[], object]) -> Iterator[None]:
    """Within this block the stop signal, and SIGTERM too, call `stop` in the event loop."""
    loop = asyncio.get_running_loop()
    signals = (STOP_SIGNAL, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # what ends by itself is let end
