"""Quantities are told in the unit that suits, with no more digits than tell anything."""

import pytest

from flows.reports.quantities import count, duration, memory


@pytest.mark.parametrize(
    ("kibibytes", "told"),
    [
        (0, "0 KB"),
        (512, "512 KB"),
        (999.5, "1000 KB"),
        (1000, "1 MB"),
        (1536, "1.5 MB"),
        (60 * 1024, "60 MB"),
        (4000 * 1024, "3.9 GB"),
        (1.25 * 1024**2, "1.2 GB"),
        (16 * 1024**2, "16 GB"),
        (3 * 1024**3, "3 TB"),
        (5000 * 1024**3, "5000 TB"),
    ],
)
def test_memory(kibibytes: float, told: str) -> None:
    assert memory(kibibytes) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-0.3, "0 s"),
        (0, "0 s"),
        (0.04, "0 s"),
        (3.21, "3.2 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (7810, "2 h 10 min"),
        (3 * 86_400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_counts() -> None:
    assert [count(number, "unit") for number in (0, 1, 2)] == ["0 units", "1 unit", "2 units"]
