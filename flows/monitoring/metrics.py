"""What is known of an installation, as metrics of Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.monitoring.observation import Facts, Observation


def metrics_text(seen: Observation, requests: Collector) -> bytes:
    """The answer to a scrape; `requests` knows how long requests take."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(requests)
    registry.register(_Seen(seen))
    return generate_latest(registry)


class _Seen(Collector):
    def __init__(self, seen: Observation) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        seen = self._seen
        yield _flag("fractal_database_up", "Whether the database answers.", seen.facts is not None)
        yield _flag("fractal_prefect_up", "Whether Prefect answers.", seen.prefect_answers)
        if seen.facts is not None:
            yield from _jobs(seen.facts)
            yield from _ended(seen.facts)
            yield _silences(seen.facts)
        yield from _folders(seen)


def _flag(name: str, help_: str, value: bool) -> Metric:
    return GaugeMetricFamily(name, help_, value=float(value))


def _jobs(facts: Facts) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "fractal_jobs",
        "Submitted jobs: those that a process runs, and those that wait, or are paused.",
        labels=["resource", "state"],
    )
    oldest = GaugeMetricFamily(
        "fractal_oldest_waiting_job_seconds",
        "How long ago the oldest of the waiting jobs was submitted; 0 if none waits.",
        labels=["resource"],
    )
    for each in facts.open_jobs:
        jobs.add_metric([each.resource, "running"], each.running)
        jobs.add_metric([each.resource, "waiting"], each.waiting)
        oldest.add_metric([each.resource], each.oldest_waiting_seconds)
    yield from (jobs, oldest)


def _ended(facts: Facts) -> Iterator[Metric]:
    jobs = CounterMetricFamily(
        "fractal_jobs_ended", "Jobs that have ended.", labels=["resource", "outcome"]
    )
    units = CounterMetricFamily(
        "fractal_units_ended",
        "Units that have ended, and what failed them.",
        labels=["resource", "outcome", "cause"],
    )
    for each in facts.tallies:
        if each.what == "job":
            jobs.add_metric([each.resource, each.outcome], each.number)
        else:
            units.add_metric([each.resource, each.outcome, each.cause], each.number)
    yield from (jobs, units)


def _silences(facts: Facts) -> Metric:
    silence = GaugeMetricFamily(
        "fractal_silence_seconds",
        "For how long a part of a resource's worker has not done its work, or had no answer.",
        labels=["resource", "part"],
    )
    for each in facts.silences:
        silence.add_metric([each.resource, each.part], each.seconds)
    return silence


def _folders(seen: Observation) -> Iterator[Metric]:
    reached = GaugeMetricFamily(
        "fractal_folder_up", "Whether the file system of a folder answers.", labels=["folder"]
    )
    size = GaugeMetricFamily(
        "fractal_folder_size_bytes", "The size of its file system.", labels=["folder"]
    )
    free = GaugeMetricFamily("fractal_folder_free_bytes", "What is free of it.", labels=["folder"])
    for folder, space in seen.spaces.items():
        reached.add_metric([folder], float(space is not None))
        if space is not None:
            size.add_metric([folder], space.size)
            free.add_metric([folder], space.free)
    yield from (reached, size, free)
