"""Charts as SVG texts, without scripts: a time line, how many units ran at once, a histogram.

Pure. Lengths are in pixels of a drawing `WIDTH` wide, which scales with its page. Colours are
classes, given by the style of the page.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

from flows.reports.quantities import count, duration

WIDTH = 960
_LEFT = 250  # for the labels
_PLOT = WIDTH - _LEFT - 10
_ROW, _BAR = 22, 14
_AXIS = 24
_LONGEST_LABEL = 38  # characters
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
_DAY = 86_400
_MOST_TICKS = 8
_MOMENTS = 480  # at which units are counted
_BARS = 48


@dataclass(frozen=True, slots=True)
class Bar:
    """What lasted from `begin` to `end` (seconds); `kind` is its class, `title` is shown on it."""

    begin: float
    end: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    bars: Sequence[Bar]


def time_line(rows: Sequence[Row], seconds: float, name: str) -> str:
    """Rows of bars, from 0 to so many seconds; `name` is read to those who do not see it."""
    height = len(rows) * _ROW
    parts = [_axis(seconds, height)]
    for number, row in enumerate(rows):
        top = number * _ROW
        parts.append(_label(row.label, top + _ROW - 7))
        for bar in row.bars:
            x, width = _x(bar.begin, seconds), _x(bar.end, seconds) - _x(bar.begin, seconds)
            parts.append(
                f'<rect class="{bar.kind}" x="{x:.1f}" y="{top + 4}" width="{max(width, 1.5):.1f}" '
                f'height="{_BAR}" rx="2"><title>{escape(bar.title)}</title></rect>'
            )
    return _drawing(parts, height + _AXIS, name)


def at_once(spans: Sequence[tuple[float, float]], seconds: float, name: str) -> str:
    """How many of these spans (begin and end in seconds) there are at a time, on average."""
    numbers, most = _averages(spans, seconds), _most_at_once(spans)
    top, height = max(numbers) or 1.0, 3 * _ROW
    points = [f"{_LEFT},{height}"]
    for moment, number in enumerate(numbers):
        y = height - number / top * (height - 6)
        left, right = (_LEFT + each * _PLOT / _MOMENTS for each in (moment, moment + 1))
        points += [f"{left:.1f},{y:.1f}", f"{right:.1f},{y:.1f}"]
    points.append(f"{_LEFT + _PLOT},{height}")
    parts = [
        _axis(seconds, height),
        _label(f"units at once, at most {most}", height // 2 + 4),
        f'<polygon class="units" points="{" ".join(points)}"/>',
    ]
    return _drawing(parts, height + _AXIS, name)


def _averages(spans: Sequence[tuple[float, float]], seconds: float) -> list[float]:
    """How many spans there are on average in each of `_MOMENTS` equal parts of the time."""
    whole = [0.0] * (_MOMENTS + 1)  # changes from one moment to the next
    part = [0.0] * _MOMENTS
    for span in spans:
        begin, end = (min(max(at / (seconds or 1.0), 0.0), 1.0) * _MOMENTS for at in span)
        first, last = min(int(begin), _MOMENTS - 1), min(int(end), _MOMENTS - 1)
        if first == last:
            part[first] += end - begin
            continue
        part[first] += first + 1 - begin
        part[last] += end - last
        whole[first + 1] += 1
        whole[last] -= 1
    return [part[each] + number for each, number in enumerate(accumulate(whole[:-1]))]


def _most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    changes = [(end, -1) for _, end in spans] + [(begin, 1) for begin, _ in spans]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def histogram(
    values: Sequence[float], read: Callable[[float], str], name: str, asked: float | None = None
) -> str:
    """How often values lie in each of some equal ranges from 0; with a line at what was asked."""
    end = max([*values, asked or 0.0]) * 1.02 or 1.0
    counts = [0] * _BARS
    for value in values:
        counts[min(int(value / end * _BARS), _BARS - 1)] += 1
    most, height = max(counts) or 1, 4 * _ROW
    step = _PLOT / _BARS
    parts = [_label(count(len(values), "unit"), height // 2 + 4)]
    for number, found in enumerate(counts):
        if found:
            tall = max(found / most * (height - 8), 1.5)
            low, high = read(number * end / _BARS), read((number + 1) * end / _BARS)
            parts.append(
                f'<rect class="units" x="{_LEFT + number * step:.1f}" y="{height - tall:.1f}" '
                f'width="{step - 1:.1f}" height="{tall:.1f}">'
                f"<title>{count(found, 'unit')}: {escape(low)} to {escape(high)}</title></rect>"
            )
    ticks = [(_LEFT + share * _PLOT, read(share * end)) for share in (0, 0.25, 0.5, 0.75, 1)]
    parts.append(_ticks(ticks, height))
    if asked is not None:
        x = _LEFT + asked / end * _PLOT
        parts.append(
            f'<line class="asked" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}">'
            f"<title>asked: {escape(read(asked))}</title></line>"
        )
    return _drawing(parts, height + _AXIS, name)


def _x(at: float, seconds: float) -> float:
    return _LEFT + min(max(at / (seconds or 1.0), 0.0), 1.0) * _PLOT


def _axis(seconds: float, height: int) -> str:
    fitting = (each for each in _STEPS if seconds / each <= _MOST_TICKS)
    step = next(fitting, _DAY * (1 + int(seconds / _DAY / _MOST_TICKS)))
    moments = [number * step for number in range(int(seconds / step) + 1)]
    return _ticks(
        [(_x(each, seconds), duration(each) if each else "0") for each in moments], height
    )


def _ticks(ticks: Iterable[tuple[float, str]], height: int) -> str:
    return "".join(
        f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>'
        f'<text class="tick" x="{min(x, WIDTH - 24):.1f}" y="{height + 16}">{escape(words)}</text>'
        for x, words in ticks
    )


def _label(words: str, y: int) -> str:
    short = words if len(words) <= _LONGEST_LABEL else f"{words[: _LONGEST_LABEL - 1]}…"
    return f'<text x="0" y="{y}">{escape(short)}<title>{escape(words)}</title></text>'


def _drawing(parts: Sequence[str], height: int, name: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(name)}" viewBox="0 0 {WIDTH} {height}">'
        f"{''.join(parts)}</svg>"
    )
