"""What units may take follows from what earlier ones needed."""

import pytest

from flows.plans.estimates import cpu_seconds, total, wall_seconds
from flows.records.needs import Need, Spread
from fractal_models.schemas.plan import Amount

EQUAL = Spread(low=2, median=2, high=2, mean=2, highest=2)
WIDE = Spread(low=1, median=2, high=10, mean=4, highest=20)
LEAD = Spread(low=1, median=3, high=5, mean=3, highest=5)


def need(wall: Spread, lead: Spread = LEAD) -> Need:
    return Need(1, 10, EQUAL, wall, wall, lead)


def amounts(amount: Amount) -> tuple[float, float, float]:
    return amount.low, amount.median, amount.high


@pytest.mark.parametrize(
    ("units", "at_once", "expected"),
    [(1, 4, (3, 5, 7)), (4, 4, (3, 5, 7)), (5, 4, (5, 7, 9)), (8, 1, (17, 19, 21))],
)
def test_units_that_are_equal_run_in_turns(
    units: int, at_once: int, expected: tuple[float, float, float]
) -> None:
    assert amounts(wall_seconds(units, at_once, need(EQUAL))) == expected


def test_the_last_turn_lasts_as_long_as_its_slowest_unit() -> None:
    assert wall_seconds(1, 1, need(WIDE)).median == 3 + 2
    assert wall_seconds(2, 2, need(WIDE)).median == 3 + 10
    assert wall_seconds(20, 2, need(WIDE)).median == 3 + 9 * 4 + 10


def test_many_units_need_their_number_times_the_mean() -> None:
    assert cpu_seconds(1, need(WIDE)).median == 2
    assert cpu_seconds(1000, need(WIDE)).median == pytest.approx(4000, rel=0.01)
    assert amounts(cpu_seconds(3, need(EQUAL))) == (6, 6, 6)


def test_a_sum_is_unknown_if_a_part_is() -> None:
    one = Amount(low=1, median=2, high=3)
    assert amounts(total([one, one]) or one) == (2, 4, 6)
    assert total([one, None]) is None
    assert total([]) is None
