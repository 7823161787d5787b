"""What units may take, by what earlier ones of the same task version needed."""

from collections.abc import Iterable
from math import ceil

from flows.records.needs import Need
from fractal_models.schemas.plan import Amount

NOTHING = Amount(low=0, median=0, high=0)


def cpu_seconds(num_units: int, need: Need) -> Amount:
    """The CPU time of all units together.

    That of many units is their number times the mean; that of one, more probably the median.
    """
    cpu = need.cpu_seconds
    typical = cpu.mean + (cpu.median - cpu.mean) / num_units
    return _ordered(num_units * cpu.low, num_units * typical, num_units * cpu.high)


def wall_seconds(num_units: int, at_once: int, need: Need) -> Amount:
    """The time from the beginning of a phase to its end, with so many units running at once.

    Units run in turns, after what comes before the first one. The last turn lasts as long as its
    slowest unit.
    """
    turns, wall, lead = ceil(num_units / at_once), need.wall_seconds, need.lead_seconds
    last = wall.median if num_units == 1 else wall.high
    return _ordered(
        lead.low + turns * wall.low,
        lead.median + (turns - 1) * wall.mean + last,
        lead.high + turns * wall.high,
    )


def total(amounts: Iterable[Amount | None]) -> Amount | None:
    """The sum; None if one of them is not known, or there are none."""
    known = list(amounts)
    if not known or any(each is None for each in known):
        return None
    return Amount(
        low=sum(each.low for each in known if each),
        median=sum(each.median for each in known if each),
        high=sum(each.high for each in known if each),
    )


def memory_mb(need: Need) -> Amount:
    """The peak memory of a unit, in MiB."""
    rss = need.peak_rss_kb
    return Amount(low=rss.low / 1024, median=rss.median / 1024, high=rss.high / 1024)


def _ordered(low: float, median: float, high: float) -> Amount:
    low, median, high = sorted(max(0.0, each) for each in (low, median, high))
    return Amount(low=low, median=median, high=high)
