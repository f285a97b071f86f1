"""The reward curve of a history as a static picture: plain SVG, seen without a kernel, a browser script or a network."""

from __future__ import annotations

import html
import math
from typing import Any

ACTIVE, TEACHER = "active_fraction", "teacher_accuracy"  # metrics drawn beside the reward where a history has them
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8a8a8a"  # told apart by colour-blind eyes, and by their strokes without colour
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 272, 44, 16, 60, 34
MOST_NOTES = 8  # changes spelled out below the picture


class Curve:
    """A picture for a notebook. `str()` of it is the SVG; its text form tells the same in a line."""

    def __init__(self, svg: str, text: str) -> None:
        self.svg, self.text = svg, text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": self.text}

    def __str__(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return self.text


def curve(history: Any, title: str = "") -> Curve:
    """Mean reward a step (dots), smoothed (line), with teacher accuracy and active fraction, and a mark at every change by hand."""
    records = history.records
    rewards = [r.reward for r in records]
    first, last = (records[0].step, max(records[-1].step, records[0].step + 1)) if records else (1, 2)
    others = [v for r in records for v in (r.metrics.get(TEACHER), r.metrics.get(ACTIVE)) if v is not None and math.isfinite(v)]
    finite = [v for v in rewards if math.isfinite(v)] + others
    low, high = min([0.0, *finite]), max([1.0, *finite])

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(values: list[float | None], color: str, width: float, dashes: str = "") -> str:
        points = [f"{x(r.step):.1f},{y(v):.1f}" for r, v in zip(records, values) if v is not None and math.isfinite(v)]
        return f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * (high - low)
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>' + _text(LEFT - 6, y(value) + 4, f"{value:.2g}", "end"))
    for step in _ticks(first, last):
        parts.append(_text(x(step), HEIGHT - BOTTOM + 16, str(step), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "step", "middle"))
    marks = [(step, fields) for step, fields in sorted(history.changes.items()) if records and step <= records[-1].step]
    for k, (step, fields) in enumerate(marks):
        parts.append(f'<path d="M{x(step):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{ORANGE}" stroke-dasharray="2 3"/>'
                     + _text(x(step), TOP - 4, _letter(k), "middle", ORANGE))
    for k, (step, fields) in enumerate(marks[:MOST_NOTES]):
        words = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in fields.items())
        parts.append(_text(LEFT, HEIGHT + 12 + 16 * k, f"{_letter(k)}  from step {step}: {words}", "start", ORANGE))
    notes = len(marks[:MOST_NOTES])
    if len(marks) > notes:
        parts.append(_text(LEFT, HEIGHT + 12 + 16 * notes, f"and {len(marks) - notes} more changes", "start", ORANGE))
        notes += 1
    parts.append(line([r.metrics.get(ACTIVE) for r in records], GREY, 1.2, "2 3"))
    parts.append(line([r.metrics.get(TEACHER) for r in records], ORANGE, 1.6, "6 4"))
    parts += [f'<circle cx="{x(r.step):.1f}" cy="{y(r.reward):.1f}" r="2" fill="{BLUE}" fill-opacity=".4"/>'
              for r in records if math.isfinite(r.reward)]
    parts.append(line(smooth(rewards), BLUE, 2.2))
    parts.append(_text(LEFT, 18, title, "start", "#222", 13) + _legend(records))
    text = title or f"{len(records)} steps"
    tall = HEIGHT + (16 * notes + 6 if notes else 0)
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" role="img" '
           f'aria-label="{html.escape(text)}" font-family="system-ui, sans-serif">'
           f'<rect width="{WIDTH}" height="{tall}" rx="8" fill="#fff"/>{"".join(parts)}</svg>')
    return Curve(svg, f"Curve({text})")


def smooth(values: list[float], weight: float = 0.3) -> list[float | None]:
    """Exponential moving average that starts at the first finite value; None before it."""
    smoothed, now = [], None
    for value in values:
        if math.isfinite(value):
            now = value if now is None else now + weight * (value - now)
        smoothed.append(now)
    return smoothed


def _letter(k: int) -> str:
    return chr(97 + k) if k < 26 else str(k + 1)


def _legend(records: list[Any]) -> str:
    names = [("mean reward", BLUE, "")]
    names += [("teacher accuracy", ORANGE, "6 4")] if any(TEACHER in r.metrics for r in records) else []
    names += [("active fraction", GREY, "2 3")] if any(ACTIVE in r.metrics for r in records) else []
    parts, at = [], LEFT
    for name, color, dashes in names:
        parts.append(f'<path d="M{at} 33h18" stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}"/>' + _text(at + 24, 37, name, "start"))
        at += 40 + 7 * len(name)
    return "".join(parts)


def _ticks(first: int, last: int) -> list[int]:
    """At most eight whole, round steps."""
    size = 10 ** max(0, math.floor(math.log10(max(1, last - first))) - 1)
    gap = next(size * k for k in (1, 2, 5, 10, 20, 50) if (last - first) / (size * k) <= 8)
    return [first, *(s for s in range(gap * (first // gap + 1), last + 1, gap) if s - first > gap / 2)]


def _text(x: float, y: float, words: str, anchor: str, color: str = "#555", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="{size}">{html.escape(words)}</text>'
