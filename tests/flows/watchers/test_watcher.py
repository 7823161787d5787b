"""What is away is said once, and again when it is back."""

from flows.engine.client import EngineUnavailableError
from flows.watchers.watcher import Outages

PREFECT = EngineUnavailableError("The Prefect API refuses: 500")


def test_an_outage_is_said_once_then_once_a_minute_and_when_it_is_over() -> None:
    said: list[str] = []
    seconds = 0.0
    outages = Outages(said.append, lambda: seconds)
    for moment in range(240):  # two minutes, in which two look twice a second
        seconds = moment / 2
        outages.met("reconciler", PREFECT)
        outages.met("worker", PREFECT)
    assert said == [
        "Prefect is away, and is waited for. The Prefect API refuses: 500",
        "Prefect is away for 60 s. The Prefect API refuses: 500",
    ]
    outages.survived("worker")
    assert len(said) == 2  # the other has not been answered yet
    outages.survived("reconciler")
    outages.survived("worker")
    assert said[2:] == ["Prefect is back after 120 s."]


def test_outages_of_two_things_are_told_apart() -> None:
    said: list[str] = []
    outages = Outages(said.append)
    outages.met("worker", PREFECT)
    outages.met("worker", OSError("no route to host"))
    outages.survived("worker")
    assert [line.split(" is ")[0] for line in said] == ["Prefect", "The database or a disk"] * 2
