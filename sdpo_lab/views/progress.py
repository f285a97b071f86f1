"""One line of text that tells how far a run is: redrawn in place in a notebook and a terminal, printed now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

SECONDS_BETWEEN = {"notebook": 0.3, "terminal": 0.3, "file": 10.0}


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
            self._redraw(text)
        elif self.where == "terminal":
            print("\r" + text.ljust(100), end="\n" if last else "", flush=True)
        else:
            print(text, flush=True)

    def say(self, text: str) -> None:
        """A sentence that stays."""
        if self.enabled:
            print(text, flush=True)

    def _redraw(self, text: str) -> None:
        from IPython.display import display

        bundle = {"text/plain": text}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


def describe(run: Any) -> str:
    """For example "running · 23 of 60 steps · mean reward 0.41 (last 5 steps) · 14 s, about 23 s left · 1.6 steps/s"."""
    parts = [run.state, f"{run.done} of {run.steps} steps"]
    rewards = [r.reward for r in run.records_since(run.first)[-5:] if math.isfinite(r.reward)]
    if rewards:
        parts.append(f"mean reward {sum(rewards) / len(rewards):.2f} (last {f'{len(rewards)} steps' if len(rewards) > 1 else 'step'})")
    each = run.seconds_per_step
    left = f", about {duration(each * (run.steps - run.done))} left" if each and run.state in ("running", "pausing", "paused") else ""
    parts.append(duration(run.seconds) + left)
    if each:
        parts.append(f"{1 / each:.1f} steps/s" if each < 1 else f"{each:.1f} s/step")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """14 s, 2 min 05 s, 1 h 02 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def in_notebook() -> bool:
    """True inside a Jupyter kernel, where a display can be redrawn in place."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
