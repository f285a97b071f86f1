"""The curve of one history: reward, what stands beside it, and every change made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sdpo_lab.core.checks import check_kind, check_text
from sdpo_lab.core.records import History
from sdpo_lab.live.knobs import told
from sdpo_lab.views.charts import Chart, Line, drawn, smooth

# metrics drawn beside the reward; the last only where a history has none of the others
TEACHER, HELD_OUT, ACTIVE = "teacher_accuracy", "held_out_accuracy", "active_fraction"
WINDOW = 5  # steps to average over
MOST_POINTS = 500  # of a line


def curve(history: Any, title: str = "", note: str = "") -> Chart:
    """Mean reward by step (mean of the last 5), what stands beside it, and a mark at every change.

    Beside it: accuracies of teacher and student on test problems where they were measured, else
    the active fraction. A static picture: it needs no kernel to be seen again. Steps whose reward
    is not finite, or beyond ±1e300, are left out; of long runs every line has 500 points. Raises
    TypeError for what is no History, and for a title or a note that is no string.
    """
    check_kind("history", history, History, "a History, such as trainer.history")
    check_text("title", title)
    check_text("note", note)
    records = [r for r in history.records if drawn(r.reward)]
    steps = [r.step for r in records]
    lines = [
        Line(
            f"mean reward, over {WINDOW} steps",
            *thin(steps, smooth([r.reward for r in records], WINDOW)),
        )
    ]
    for metric in (TEACHER, HELD_OUT, ACTIVE):
        known = [
            (r.step, r.metrics[metric]) for r in records if drawn(r.metrics.get(metric, math.nan))
        ]
        if known and (metric != ACTIVE or len(lines) == 1):
            lines.append(
                Line(metric.replace("_", " "), *thin(*zip(*known)), points=len(known) < 40)
            )
    marks = {
        step: tell(told(fields))
        for step, fields in history.changes.items()
        if steps and step <= steps[-1]
    }
    values = [v for line in lines for v in line.y]
    return Chart(
        title or f"{len(history.records)} steps",
        lines,
        "step",
        y_range=(min([0.0, *values]), max([1.0, *values])),
        marks=marks,
        note=note,
    )


def thin(
    x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS
) -> tuple[list[float], list[float]]:
    """At most about `most` points: the lowest and highest of each stretch, and the last one.

    So no spike is lost.
    """
    if len(x) <= most:
        return list(x), list(y)
    size, kept = math.ceil(2 * len(x) / most), {len(x) - 1}
    for start in range(0, len(x), size):
        places = range(start, min(start + size, len(x)))
        kept |= {min(places, key=y.__getitem__), max(places, key=y.__getitem__)}
    return [x[i] for i in sorted(kept)], [y[i] for i in sorted(kept)]


def tell(fields: dict[str, Any]) -> str:
    """learning rate 0.001, temperature 0.9"""
    words = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in fields.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in words.items())
