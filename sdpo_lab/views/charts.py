"""Charts as self-contained SVG, which follow the page's light or dark theme.

They need no kernel, no network and no JavaScript.

`Chart.figure()` gives the same as a plotly figure, for hovering and zooming.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

from sdpo_lab.core.checks import check_kind, check_range, check_text, printable, short_repr
from sdpo_lab.views.html import SMALL, Html, escape, joined, tag

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
    """Lines over a common x axis.

    A point one of whose numbers is not finite, or beyond ±1e300, is left out, and so is a mark
    there. Raises TypeError unless texts are strings and lines are `Line`, ValueError unless
    `y_range` is two numbers between -1e300 and 1e300, the lower one first.
    """

    title: str
    lines: list[Line]
    x_title: str = ""
    y_title: str = ""
    y_range: tuple[float, float] | None = None
    note: str = ""  #: a line below, e.g. "recorded"
    #: x -> what happened there; lettered in the picture, spelled out below
    marks: Mapping[float, str] = field(default_factory=dict)

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
                f"y_range must be two numbers between {-LARGEST:g} and {LARGEST:g}, the lower one "
                f"first, or None; got {short_repr(self.y_range)}"
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
            part = (min(max(y, y0), y1) - y0) / (y1 - y0)
            return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

        def path(x: Sequence[float], y: Sequence[float]) -> str:
            points = ((a, b) for a, b in zip(x, y) if drawn(a) and drawn(b))
            return " ".join(f"{px(a):.1f},{py(b):.1f}" for a, b in points)

        parts = axes(x0, x1, y0, y1, px, py, self.x_title, self.y_title)
        for i, line in enumerate(self.lines):
            colour = COLOURS[i % len(COLOURS)]
            if line.low:
                outline = [path(line.x, line.high), path(list(line.x)[::-1], list(line.low)[::-1])]
                parts.append(tag("polygon", points=" ".join(outline), fill=colour, opacity="0.18"))
            parts.append(tag("polyline", points=path(line.x, line.y), fill="none", **stroke(i)))
            dots = zip(line.x, line.y) if line.points else ()
            parts += [
                tag("circle", cx=f"{px(a):.1f}", cy=f"{py(b):.1f}", r=3.2, fill=colour)
                for a, b in dots
                if drawn(a) and drawn(b)
            ]
        inside = [(x, words) for x, words in sorted(self.marks.items()) if x0 <= x <= x1]
        note = self.note
        bold = f"font-weight:700;fill:{COLOURS[1]}"
        for i, (x, words) in enumerate(inside):
            at = f"{px(x):.1f}"
            ends = {"x1": at, "x2": at, "y1": TOP, "y2": HEIGHT - BOTTOM}
            parts.append(tag("line", **ends, stroke=COLOURS[1], stroke_dasharray="2 3"))
            parts.append(text(at, TOP - 3, letter(i), "middle", style=bold))
            note += f"\n{letter(i)}: {self.x_title} {x:g}, {words}"
        names = [key(i, line.name) for i, line in enumerate(self.lines)]
        return wrap(self.title, parts, joined(*names), note)

    def figure(self) -> Any:
        """The same as a plotly figure, which would read tags in texts; here no text is one."""
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
            above = [high - y for high, y in zip(line.high, line.y)]
            below = [y - low for low, y in zip(line.low, line.y)]
            error = dict(type="data", symmetric=False, array=above, arrayminus=below)
            figure.add_scatter(
                x=list(line.x),
                y=list(line.y),
                name=escape(line.name),
                line=dict(color=COLOURS[i % len(COLOURS)]),
                error_y=error if line.low else None,
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
    """Horizontal bars with their values written out; negative ones go to the left of a common zero.

    A value that is not finite, or beyond ±1e300, has no bar. Raises TypeError unless texts are
    strings and values are numbers.
    """

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
        # percent of the room for one unit; the rest is for the numbers
        scale = 72 / max(top - bottom, 1e-9)
        rows = []  # no table: notebooks style those in their own way
        for i, (name, value) in enumerate(self.values.items()):
            length = value if drawn(value) else 0.0
            bar = tag(
                "div",
                style="display:inline-block;vertical-align:middle;height:1.1em;min-width:1px;"
                f"margin-left:{scale * (min(length, 0.0) - bottom):.2f}%;"
                f"width:{scale * abs(length):.2f}%;"
                f"background:{self.colour or COLOURS[i % len(COLOURS)]}",
            )
            label = tag("div", name, style="flex:0 0 42%;text-align:right;padding-right:8px")
            words = f" {in_words(value)} {self.unit}"
            rest = tag("div", bar, words, style="flex:1 1 auto;white-space:nowrap")
            row = "display:flex;align-items:center;padding:2px 0"
            rows.append(tag("div", label, rest, style=row))
        return figure(self.title, *rows, note=self.note)

    def __repr__(self) -> str:
        values = (f"{name} {in_words(v)} {self.unit}" for name, v in self.values.items())
        return printable(f"{self.title}: {', '.join(values)}")


def drawn(value: float) -> bool:
    """Has a number a place in a picture? Not when it is nan, infinite or beyond ±`LARGEST`."""
    return abs(value) <= LARGEST


def in_words(value: float) -> str:
    """A number with two digits after the point; one without a place as Python writes it."""
    return f"{value:.2f}" if drawn(value) else short_repr(value)


def apart(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis; where there is nothing to tell apart between them, it goes on above."""
    if high - low > max(1e-300, 1e-12 * max(abs(low), abs(high))):
        return low, high
    return low, low + max(1, 1e-3 * abs(low))


def letter(i: int) -> str:
    """a, b, ... z, 27, 28: names for marks."""
    return chr(97 + i) if i < 26 else str(i + 1)


def stroke(i: int) -> dict[str, Any]:
    """How the i-th line is drawn."""
    return {
        "stroke": COLOURS[i % len(COLOURS)],
        "stroke_width": 2.2,
        "stroke_dasharray": DASHES[i % len(DASHES)],
    }


def key(i: int, name: str) -> Html:
    """The i-th line's entry in the legend."""
    sample = tag("line", x1=0, x2=30, y1=4, y2=4, **stroke(i))
    picture = tag("svg", sample, width=30, height=8, aria_hidden="true")
    return tag("span", picture, f" {name}", style="margin-right:1.2em;white-space:nowrap")


def text(x: Any, y: float, words: str, anchor: str = "start", **attributes: Any) -> Html:
    """Words in an SVG."""
    return tag("text", words, x=x, y=y, text_anchor=anchor, **attributes)


def axes(
    x0: float, x1: float, y0: float, y1: float, px: Any, py: Any, x_title: str, y_title: str
) -> list[Html]:
    """Rules, ticks and titles; `px` and `py` give the place of a value."""
    grey = {"stroke": "currentColor", "stroke_opacity": 0.22}
    floor, parts = HEIGHT - BOTTOM, []
    for y in ticks(y0, y1):
        at = f"{py(y):.1f}"
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, **grey))
        parts.append(text(LEFT - 6, f"{py(y) + 4:.1f}", f"{y:g}", "end"))
    for x in ticks(x0, x1):
        at = f"{px(x):.1f}"
        parts.append(tag("line", x1=at, x2=at, y1=floor, y2=floor + 4, **grey))
        parts.append(text(at, floor + 17, f"{x:g}", "middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_title, "middle"))
    parts.append(text(LEFT, TOP - 14, y_title))
    return parts


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def wrap(title: str, parts: list[Html], legend: Html, note: str) -> Html:
    """A chart of its parts."""
    svg = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width="100%",
        role="img",
        aria_label=title,
        style="font-size:12px;fill:currentColor",
    )
    return figure(title, svg, tag("div", legend), note=note)


def figure(title: str, *inside: Html, note: str) -> Html:
    """A picture with a title above and a note below."""
    caption = tag("figcaption", title, style="font-weight:600;padding:4px 0")
    below = tag("div", note, style="opacity:.75;white-space:pre-line")
    look = f"max-width:{WIDTH}px;margin:4px 0;{SMALL}"
    return tag("figure", caption, *inside, below, style=look)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place, 1 or more. Raises TypeError for no list."""
    check_range("window", window, int, 1)
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise TypeError(f"values must be a list of numbers; got {short_repr(values)}")
    windows = (values[max(0, end - window) : end] for end in range(1, len(values) + 1))
    return [sum(part) / len(part) for part in windows]
