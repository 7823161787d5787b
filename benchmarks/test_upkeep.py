"""The benchmark of upkeep: what it calls growth."""

from dataclasses import replace

import pytest

from benchmarks.upkeep import Sizes, report

MB = 10**6
# Only the record grows.
FLAT = [Sizes(n, 9, 90 * MB, (10 + n) * MB, n * MB, 3 * MB, MB) for n in range(9)]


def test_that_only_the_record_grows_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(FLAT) == 0
    assert "The record, per job               1000.0 kB" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["prefect", "fractal", "folders", "logs"])
def test_what_else_grows_is_found(what: str) -> None:
    growing = [replace(each, **{what: getattr(each, what) + each.jobs * MB}) for each in FLAT]
    if what == "prefect":  # a tenth is not enough
        assert report(growing) == 0
        growing = [replace(each, prefect=each.prefect + each.jobs * 2 * MB) for each in FLAT]
    assert report(growing) == 1


def test_a_day_that_is_too_short_tells_nothing() -> None:
    assert report(FLAT[:5]) == 1
