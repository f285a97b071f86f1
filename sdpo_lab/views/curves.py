"""The curve of one history: reward, what stands beside it, and every change made by hand."""

from __future__ import annotations

import math
from typing import Any

from sdpo_lab.views.charts import Chart, Line, smooth

ACTIVE, TEACHER = "active_fraction", "teacher_accuracy"  # metrics drawn beside the reward where a history has them
WINDOW = 5  # steps to average over


def curve(history: Any, title: str = "") -> Chart:
    """Mean reward by step (mean of the last 5), teacher accuracy and active fraction where known, and a mark at every change.

    A static picture: it needs no kernel to be seen again. Steps whose reward is not finite are left out.
    """
    records = [r for r in history.records if math.isfinite(r.reward)]
    steps = [r.step for r in records]
    lines = [Line(f"mean reward, over {WINDOW} steps", steps, smooth([r.reward for r in records], WINDOW))]
    for metric in (TEACHER, ACTIVE):
        known = [(r.step, r.metrics[metric]) for r in records if math.isfinite(r.metrics.get(metric, math.nan))]
        if known:
            lines.append(Line(metric.replace("_", " "), *zip(*known)))
    marks = {step: tell(fields) for step, fields in history.changes.items() if steps and step <= steps[-1]}
    values = [v for line in lines for v in line.y]
    return Chart(title or f"{len(history.records)} steps", lines, "step", y_range=(min([0.0, *values]), max([1.0, *values])), marks=marks)


def tell(fields: dict[str, Any]) -> str:
    """learning rate 0.001, temperature 0.9"""
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
                     for name, value in fields.items())
