"""Charts show the amounts that they are given."""

import re

import pytest

from flows.job_report.charts import WIDTH, Bar, Row, at_once, histogram, time_line
from flows.reports.quantities import duration


def numbers(svg: str, name: str) -> list[float]:
    return [float(each) for each in re.findall(rf' {name}="([\d.]+)"', svg)]


def test_bars_lie_where_their_times_are() -> None:
    bars = [Bar(0, 50, "done", "first"), Bar(50, 100, "failed", "second"), Bar(-9, 999, "done", "")]
    svg = time_line([Row("task", bars)], 100, "times")
    rects = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="4" width="([\d.]+)"', svg)
    assert rects == [
        ("done", "250.0", "350.0"),
        ("failed", "600.0", "350.0"),
        ("done", "250.0", "700.0"),
    ]
    assert "<title>second</title>" in svg


@pytest.mark.parametrize(
    ("seconds", "last"),
    [(0.0, "0"), (3.0, "3 s"), (59, "50 s"), (7200, "2 h"), (10 * 86_400, "10 d")],
)
def test_an_axis_has_few_round_times(seconds: float, last: str) -> None:
    words = re.findall(r'<text class="tick"[^>]*>([^<]*)', time_line([], seconds, "times"))
    assert len(words) <= 9
    assert (words[0], words[-1]) == ("0", last)


def test_units_at_once_are_counted_to_the_last_one() -> None:
    one_after_the_other = [(each / 10, (each + 1) / 10) for each in range(10_000)]
    svg = at_once([*one_after_the_other, (200.0, 300.0)], 1000, "units")
    assert "units at once, at most 2" in svg
    (points,) = re.findall(r'points="([^"]*)"', svg)
    heights = {round(float(each.split(",")[1])) for each in points.split()}
    assert heights >= {66, 36, 6}  # none, one, two
    assert len(svg) < 30_000


def test_a_histogram_counts_each_value_once_and_marks_what_was_asked() -> None:
    svg = histogram([1.0] * 90 + [99.0] * 10, duration, "seconds", 50.0)
    counts = [int(each) for each in re.findall(r"<title>(\d+) units:", svg)]
    assert counts == [90, 10]
    (x, *_) = numbers(svg, "x1")[-1:]
    assert 250 + 700 * 0.45 < x < 250 + 700 * 0.55
    assert "<title>asked: 50 s</title>" in svg


def test_values_that_are_all_0_can_be_drawn() -> None:
    assert "<title>3 units: 0 s to" in histogram([0.0] * 3, duration, "seconds")


def test_long_labels_are_shortened_and_told_whole() -> None:
    label = "a & b " * 20
    svg = time_line([Row(label, [])], 10, "times")
    assert f"<title>{label.replace('&', '&amp;')}</title>" in svg
    assert f'viewBox="0 0 {WIDTH} ' in svg
