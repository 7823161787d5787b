"""What is up stays up: parts that end are started again, and slow ones are waited for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.services import Life, Part, Service, ServiceError, wait_for
from deployments.supervision import Supervisor, wait_after
from deployments.workers import Workers

SLEEPS = "import time; time.sleep(600)"
COMPUTES = "while True: pass"
WRITES = "import time\nwhile True: print('.', flush=True); time.sleep(0.05)"


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class ScriptedPart(Part):
    """A part that ends and starts, or cannot be started, as a test says."""

    name, log, pid = "postgres", None, None

    def __init__(self) -> None:
        self.lives, self.can_start, self.starts = True, True, 0

    def start(self) -> None:
        self.starts += 1
        if not self.can_start:
            raise ServiceError("the disk is full")
        self.lives = True

    def ended(self) -> str | None:
        return None if self.lives else "by SIGKILL"

    def stop(self) -> None:
        self.lives = False

    kill = stop


@pytest.fixture
def part() -> ScriptedPart:
    return ScriptedPart()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supervisor(clock: Clock) -> Supervisor:
    return Supervisor(lambda part: part.start(), clock)


@pytest.fixture
def python(tmp_path: Path) -> Iterator[type[Service]]:
    """Makes a service of a Python text, with a log."""
    made: list[Service] = []

    def start(code: str, name: str = "service") -> Service:
        service = Service(name, [sys.executable, "-c", code], {}, tmp_path / f"{name}.log")
        made.append(service)
        service.start()
        return service

    yield start  # type: ignore[misc]
    for service in made:
        service.kill()


def test_the_first_start_is_at_once_and_the_next_ones_are_later_and_later() -> None:
    waits = [wait_after(ends) for ends in range(1, 20)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == 30


def test_a_part_is_started_however_often_it_ends(
    part: ScriptedPart, clock: Clock, supervisor: Supervisor
) -> None:
    told: list[str] = []
    for _ in range(100):
        part.kill()
        for _ in range(31):
            told += supervisor.look([part])
            clock.seconds += 1
        assert part.lives
    assert part.starts == 100
    assert "postgres ended by SIGKILL and was started again." in told[0]
    assert "postgres ended by SIGKILL (2 times in a row); the next start is in 1 s." in told[1]


def test_a_part_that_lived_long_is_started_at_once_again(
    part: ScriptedPart, clock: Clock, supervisor: Supervisor
) -> None:
    for _ in range(5):
        part.kill()
        (line,) = supervisor.look([part])
        assert line.endswith("postgres ended by SIGKILL and was started again.")
        clock.seconds += 61


def test_a_part_that_cannot_be_started_is_tried_again_and_says_why(
    part: ScriptedPart, clock: Clock, supervisor: Supervisor
) -> None:
    part.kill()
    part.can_start = False
    told = []
    for _ in range(20):
        told += supervisor.look([part])
        clock.seconds += 1
    assert 3 < part.starts < 10
    assert len(told) == part.starts
    assert all("the disk is full" in line for line in told)
    part.can_start = True
    clock.seconds += 30
    supervisor.look([part])
    assert part.lives


@pytest.mark.parametrize("code", [COMPUTES, WRITES])
def test_a_part_that_is_at_work_is_waited_for(python: type[Service], code: str) -> None:
    clock = Clock()
    life = Life(python(code), clock)  # type: ignore[arg-type,call-arg]
    clock.seconds += 1000
    wait_for(life._part, lambda: life.quiet_seconds() == 0, 60, print)


def test_a_part_that_shows_no_life_is_given_up_before_it_was_ever_ready(
    python: type[Service],
) -> None:
    with pytest.raises(ServiceError, match="service is not ready, and has done nothing for 1 s"):
        wait_for(python(SLEEPS), lambda: False, 1, print)  # type: ignore[arg-type,call-arg]


def test_every_resource_has_a_worker_that_is_started_again(python: type[Service]) -> None:
    told: list[str] = []
    made: dict[str, Service] = {}

    def make(pool: str) -> Service:
        made[pool] = python(SLEEPS, pool)  # type: ignore[arg-type,call-arg,assignment]
        made[pool].kill()  # it is to be started by who asked for it
        return made[pool]

    workers = Workers(make, told.append)
    workers.follow(["first"])
    workers.follow(["first", "made later"])
    assert [worker.ended() for worker in made.values()] == [None, None]

    made["first"].kill()
    workers.follow(["first", "made later"])
    assert made["first"].ended() is None
    assert "first ended by SIGKILL and was started again." in told[-1]

    made["made later"].kill()
    workers.follow(["first"])
    assert made["made later"].ended() == "by SIGKILL"  # its resource was deleted
