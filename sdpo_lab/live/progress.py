"""One line of text that says how far a run is: redrawn in place in a notebook and a terminal,
printed now and then elsewhere. And, in a notebook whose page cannot be reached, a picture."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

SECONDS_BETWEEN = {"notebook": 0.3, "terminal": 0.3, "file": 10.0}
SECONDS_BETWEEN_PICTURES = 1.0


class ProgressLine:
    """Shows `describe(run)` while somebody waits for the run. Draws nothing when not `enabled`."""

    def __init__(self, run: Any, enabled: bool = True) -> None:
        self.run, self.enabled = run, enabled
        self.where = "notebook" if in_notebook() else "terminal" if sys.stdout.isatty() else "file"
        self.handle, self.drawn_at, self.text = None, 0.0, ""

    def update(self, last: bool = False) -> None:
        """Redraw when it is time to, and always when it is the last time."""
        now = time.monotonic()
        if not self.enabled or (now - self.drawn_at < SECONDS_BETWEEN[self.where] and not last):
            return
        text = describe(self.run)
        if text == self.text and not (last and self.where == "terminal"):
            return
        self.text, self.drawn_at = text, now
        if self.where == "notebook":
            self.handle = redraw(self.handle, {"text/plain": text})
        elif self.where == "terminal":
            print("\r" + text.ljust(100), end="\n" if last else "", flush=True)
        else:
            print(text, flush=True)

    def say(self, text: str) -> None:
        """A sentence that stays."""
        if self.enabled:
            print(text, flush=True)


class CurvePicture:
    """A picture below a cell that waits, drawn again in place at most once a second; outside a
    notebook nothing.

    `draw()` gives something with a `_repr_html_`. Static HTML in one display, which every front end
    can show while a cell runs.
    """

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.draw, self.handle, self.drawn_at = draw, None, -math.inf

    def update(self, last: bool = False) -> None:
        now = time.monotonic()
        if in_notebook() and (last or now - self.drawn_at >= SECONDS_BETWEEN_PICTURES):
            chart = self.draw()
            self.handle = redraw(
                self.handle, {"text/html": chart._repr_html_(), "text/plain": repr(chart)}
            )
            self.drawn_at = time.monotonic()

    def clear(self) -> None:
        """Take the picture away, if there is one: the page has answered and draws its own."""
        if self.handle is not None:
            self.handle = redraw(self.handle, {"text/plain": "(the curve is in the dashboard)"})
            self.handle = None


def redraw(handle: Any, bundle: dict[str, str]) -> Any:
    """Show `bundle` in the place of `handle`, or in a new one; returns the handle."""
    from IPython.display import display

    if handle is None:
        return display(bundle, raw=True, display_id=True)
    handle.update(bundle, raw=True)
    return handle


def describe(run: Any) -> str:
    """For example "running · 23 of 60 steps · mean reward 0.41 (last 5 steps) · 14 s"."""
    parts = [run.state, f"{run.done} of {run.steps} steps"]
    rewards = [r.reward for r in run.records_since(run.first)[-5:] if math.isfinite(r.reward)]
    if rewards:
        steps = f"{len(rewards)} steps" if len(rewards) > 1 else "step"
        parts.append(f"mean reward {sum(rewards) / len(rewards):.2f} (last {steps})")
    each, time_spent = run.seconds_per_step, duration(run.seconds)
    if each and run.state in ("running", "pausing", "paused"):
        time_spent += f", about {duration(each * (run.steps - run.done))} left"
    parts.append(time_spent)
    if each:
        parts.append(f"{1 / each:.1f} steps/s" if each < 1 else f"{each:.1f} s/step")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """14 s, 2 min 05 s, 1 h 02 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def in_notebook() -> bool:
    """True inside a Jupyter kernel, where a display can be redrawn in place."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
