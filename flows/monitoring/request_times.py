"""How long requests take: counted in every process of the API, and told for all of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry, Histogram, Summary, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client looks for it
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@contextmanager
def shared_by_processes() -> Iterator[None]:
    """Have the processes that are forked in this block measure in files that all of them read.

    prometheus_client decides when it is imported where it counts; Prefect has imported it by now.
    """
    with TemporaryDirectory(prefix="fractal-request-times-") as folder:
        os.environ[_FOLDER] = folder
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        yield


class RequestTimes:
    """The times of requests: in all by status, and the sum of each endpoint."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        self._of_all = Histogram(
            "fractal_request_seconds",
            "How long requests took.",
            ["method", "status"],
            buckets=_SECONDS,
            registry=self._own,
        )
        self._of_endpoints = Summary(
            "fractal_endpoint_seconds",
            "How long the requests to each endpoint took.",
            ["method", "path", "status"],
            registry=self._own,
        )

    def took(self, method: str, path: str, status: str, seconds: float) -> None:
        """Note a request. `path` has the names of its parameters, `status` is as 2xx."""
        self._of_all.labels(method, status).observe(seconds)
        self._of_endpoints.labels(method, path, status).observe(seconds)

    def collector(self) -> Collector:
        """The times of this process, or of all that share them."""
        if (folder := os.environ.get(_FOLDER)) is None or not Path(folder).is_dir():
            return self._own
        return MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]
