"""Charts as self-contained SVG: they need no kernel, no network and no JavaScript, and follow the page's light or dark theme.

`Chart.figure()` gives the same as a plotly figure, for hovering and zooming.
"""

from __future__ import annotations

import html
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

from sdpo_lab.core.checks import check_kind, check_range, check_text, printable, shown

#: Okabe and Ito's colour-blind-safe palette, the darker ones first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "4 4", "1 4")  # series differ without colour too
LARGEST = 1e300  # of a number in a picture: differences of larger ones are infinite
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 52, 16, 34, 42


@dataclass
class Line:
    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()  #: a band around the line, e.g. the lowest of several runs
    high: Sequence[float] = ()
    points: bool = False


@dataclass
class Chart:
    """Lines over a common x axis. A point one of whose numbers is not finite, or beyond ±1e300, is left out, and so is a mark there.

    Raises TypeError for texts that are no strings and lines that are none, ValueError for a `y_range` that is not two numbers between -1e300 and 1e300,
    the lower one first.
    """

    title: str
    lines: list[Line]
    x_title: str = ""
    y_title: str = ""
    y_range: tuple[float, float] | None = None
    note: str = field(default="")  #: a line below, e.g. "recorded"
    marks: Mapping[float, str] = field(
        default_factory=dict
    )  #: x -> what happened there; lettered in the picture, spelled out below

    def __post_init__(self) -> None:
        for name in ("title", "x_title", "y_title", "note"):
            check_text(name, getattr(self, name))
        check_kind("lines", self.lines, (list, tuple), "a list of Line(name, x, y)")
        for line in self.lines:
            check_kind("lines", line, Line, "a list of Line(name, x, y)")
        check_kind("marks", self.marks, Mapping, "a dictionary {x: what happened there}")
        ends = () if self.y_range is None else self.y_range
        if self.y_range is not None and not (
            isinstance(ends, (list, tuple))
            and len(ends) == 2
            and all(isinstance(v, numbers.Real) and drawn(v) for v in ends)
            and ends[0] <= ends[1]
        ):
            raise ValueError(
                f"y_range must be two numbers between {-LARGEST:g} and {LARGEST:g}, the lower one first, or None; got {shown(self.y_range)}"
            )

    def _repr_html_(self) -> str:
        xs = [x for line in self.lines for x in line.x if drawn(x)]
        ys = [
            y
            for line in self.lines
            for values in (line.y, line.low, line.high)
            for x, y in zip(line.x, values)
            if drawn(x) and drawn(y)
        ]
        x0, x1 = apart(*((min(xs), max(xs)) if xs else (0, 1)))
        y0, y1 = apart(*(self.y_range or ((min(ys), max(ys)) if ys else (0, 1))))

        def px(x: float) -> float:
            return LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

        def py(y: float) -> float:
            return (
                HEIGHT - BOTTOM - (min(max(y, y0), y1) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
            )

        def path(x: Sequence[float], y: Sequence[float]) -> str:
            return " ".join(
                f"{px(a):.1f},{py(b):.1f}" for a, b in zip(x, y) if drawn(a) and drawn(b)
            )

        parts = axes(x0, x1, y0, y1, px, py, self.x_title, self.y_title)
        for i, line in enumerate(self.lines):
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
            if line.low:
                band = (
                    path(line.x, line.high) + " " + path(list(line.x)[::-1], list(line.low)[::-1])
                )
                parts.append(f'<polygon points="{band}" fill="{colour}" opacity="0.18"/>')
            parts.append(
                f'<polyline points="{path(line.x, line.y)}" fill="none" stroke="{colour}" stroke-width="2.2" stroke-dasharray="{dash}"/>'
            )
            if line.points:
                parts += [
                    f'<circle cx="{px(a):.1f}" cy="{py(b):.1f}" r="3.2" fill="{colour}"/>'
                    for a, b in zip(line.x, line.y)
                    if drawn(a) and drawn(b)
                ]
        legend = "".join(
            f'<span style="margin-right:1.2em;white-space:nowrap"><svg width="30" height="8" aria-hidden="true"><line x1="0" x2="30" y1="4" y2="4" '
            f'stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="2.2" stroke-dasharray="{DASHES[i % len(DASHES)]}"/></svg> {escape(line.name)}</span>'
            for i, line in enumerate(self.lines)
        )
        marks = [
            (letter(i), x, words)
            for i, (x, words) in enumerate(sorted(self.marks.items()))
            if x0 <= x <= x1
        ]
        for name, x, _ in marks:
            parts.append(
                f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{COLOURS[1]}" stroke-dasharray="2 3"/>'
                f'<text x="{px(x):.1f}" y="{TOP - 3}" text-anchor="middle" style="font-weight:700;fill:{COLOURS[1]}">{name}</text>'
            )
        note = self.note + "".join(
            f"\n{name}: {self.x_title} {x:g}, {words}" for name, x, words in marks
        )
        return wrap(self.title, parts, legend, note)

    def figure(self) -> Any:
        """The same as a plotly figure. plotly reads tags in texts, links among them; here no text is one."""
        import plotly.graph_objects as go

        figure = go.Figure(
            layout=dict(
                title=escape(self.title),
                xaxis_title=escape(self.x_title),
                yaxis_title=escape(self.y_title),
                yaxis_range=self.y_range,
            )
        )
        for i, line in enumerate(self.lines):
            error = (
                dict(
                    type="data",
                    symmetric=False,
                    array=[h - y for h, y in zip(line.high, line.y)],
                    arrayminus=[y - low for low, y in zip(line.low, line.y)],
                )
                if line.low
                else None
            )
            figure.add_scatter(
                x=list(line.x),
                y=list(line.y),
                name=escape(line.name),
                line=dict(color=COLOURS[i % len(COLOURS)]),
                error_y=error,
            )
        return figure

    def __repr__(self) -> str:
        ends = "; ".join(
            f"{line.name}: {in_words(line.y[0])} to {in_words(line.y[-1])}"
            for line in self.lines
            if len(line.y)
        )
        return printable(f"{self.title} ({ends})")


@dataclass
class Bars:
    """Horizontal bars with their values written out; those below 0 go to the left of a common zero. A value that is not finite, or beyond ±1e300, has
    no bar. Raises TypeError for texts that are no strings and values that are no numbers."""

    title: str
    values: Mapping[str, float]
    unit: str = ""
    note: str = ""
    colour: str = ""  #: one for all bars, as in CSS; "" gives each its own

    def __post_init__(self) -> None:
        for name in ("title", "unit", "note", "colour"):
            check_text(name, getattr(self, name))
        check_kind("values", self.values, Mapping, "a dictionary {name: number}")
        for value in self.values.values():
            check_kind("values", value, SupportsFloat, "a dictionary {name: number}")

    def _repr_html_(self) -> str:
        lengths = [value for value in self.values.values() if drawn(value)]
        top, bottom = max([*lengths, 0.0]), min([*lengths, 0.0])
        scale = 72 / max(
            top - bottom, 1e-9
        )  # percent of the room for one unit; the rest is for the numbers
        rows = []  # no table: notebooks style those in their own way
        for i, (name, value) in enumerate(self.values.items()):
            colour = escape(self.colour, quote=True) or COLOURS[i % len(COLOURS)]
            length = value if drawn(value) else 0.0
            before = scale * (min(length, 0.0) - bottom)
            rows.append(
                f'<div style="display:flex;align-items:center;padding:2px 0"><div style="flex:0 0 42%;text-align:right;padding-right:8px">{escape(name)}</div>'
                f'<div style="flex:1 1 auto;white-space:nowrap"><div style="display:inline-block;vertical-align:middle;height:1.1em;min-width:1px;'
                f'margin-left:{before:.2f}%;width:{scale * abs(length):.2f}%;background:{colour}"></div> {escape(in_words(value))} {escape(self.unit)}</div></div>'
            )
        return (
            f'<figure style="max-width:{WIDTH}px;margin:4px 0;font-family:sans-serif;font-size:13px"><figcaption style="font-weight:600;padding:4px 0">'
            f'{escape(self.title)}</figcaption>{"".join(rows)}<div style="opacity:.75;white-space:pre-line">{escape(self.note)}</div></figure>'
        )

    def __repr__(self) -> str:
        return printable(
            self.title
            + ": "
            + ", ".join(
                f"{name} {in_words(value)} {self.unit}" for name, value in self.values.items()
            )
        )


def escape(text: str, quote: bool = False) -> str:
    """As HTML; half a surrogate pair, which no file can hold, becomes its code."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"), quote)


def drawn(value: float) -> bool:
    """Does a number have a place in a picture? Not when it is nan or infinite, nor beyond ±`LARGEST`."""
    return abs(value) <= LARGEST


def in_words(value: float) -> str:
    """A number with two digits after the point; one that has no place in a picture as Python writes it."""
    return f"{value:.2f}" if drawn(value) else shown(value)


def apart(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis; where there is nothing to tell apart between them, it goes on above."""
    return low, (
        high
        if high - low > max(1e-300, 1e-12 * max(abs(low), abs(high)))
        else low + max(1, 1e-3 * abs(low))
    )


def letter(i: int) -> str:
    """a, b, ... z, 27, 28: names for marks."""
    return chr(97 + i) if i < 26 else str(i + 1)


def axes(
    x0: float, x1: float, y0: float, y1: float, px: Any, py: Any, x_title: str, y_title: str
) -> list[str]:
    grey = 'stroke="currentColor" stroke-opacity="0.22"'
    parts = []
    for y in ticks(y0, y1):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}" {grey}/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in ticks(x0, x1):
        parts.append(
            f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}" {grey}/>'
        )
        parts.append(
            f'<text x="{px(x):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{x:g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>'
    )
    parts.append(f'<text x="{LEFT}" y="{TOP - 14}">{escape(y_title)}</text>')
    return parts


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= about)
    return [
        round(i * step, 10)
        for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def wrap(title: str, parts: list[str], legend: str, note: str) -> str:
    return (
        f'<figure style="max-width:{WIDTH}px;margin:4px 0;font-family:sans-serif;font-size:13px"><figcaption style="font-weight:600;padding:4px 0">'
        f'{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="{escape(title, quote=True)}" '
        f'style="font-size:12px;fill:currentColor">{"".join(parts)}</svg><div>{legend}</div><div style="opacity:.75;white-space:pre-line">{escape(note)}</div></figure>'
    )


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place; `window` is from 1 upwards. Raises TypeError for values that are no list."""
    check_range("window", window, int, 1)
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise TypeError(f"values must be a list of numbers; got {shown(values)}")
    return [
        sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1])
        for i in range(len(values))
    ]
