"""A time slider over a run: one attempt, token by token, as student and teacher saw it.

The page asks ("step 12", "are there more steps?") and is answered; nothing is sent unasked.
"""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from sdpo_lab.analysis.timeline import Timeline
from sdpo_lab.core.checks import short_repr
from sdpo_lab.views.html import (
    BLUE,
    ORANGE,
    SMALL,
    Html,
    WithPicture,
    coloured_span,
    storable,
    tag,
    visible,
)
from sdpo_lab.views.page import style, widget

TEXT = "font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7"


class Rewind(WithPicture, anywidget.AnyWidget):
    """The steps of a `Timeline`, and its attempt at the one the slider is at.

    Keyboard: Tab to the slider, arrow keys go one step back or on, Home and End to the first and
    the newest; Tab on to the tokens, arrow keys along them. Whoever looks at the newest step
    follows the run. Without a kernel the saved output shows three steps side by side, of those
    there were when the cell ran.
    """

    _esm = widget("rewind_widget")
    _css = style("rewind")
    setup = traitlets.Dict().tag(sync=True)  # the steps there were when it was made

    def __init__(self, timeline: Timeline) -> None:
        if not isinstance(timeline, Timeline):
            raise TypeError(
                "timeline must be a sdpo_lab.timeline.Timeline, as Timeline(trainer) makes it; "
                f"got {type(timeline).__name__}: {short_repr(timeline)}"
            )
        self.timeline = timeline
        super().__init__(setup=self.steps())
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"Rewind({self.timeline!r})"

    def steps(self, known: Any = None) -> dict[str, Any]:
        """The steps there are; without the list for a page whose mark says that it knows it."""
        steps = self.timeline.steps
        mark = f"{len(steps)}/{steps[-1] if steps else ''}"
        return {"kind": "steps", "mark": mark} | ({} if known == mark else {"steps": steps})

    def past(self, step: Any) -> dict[str, Any]:
        """{"kind": "past", "step", "picture"}, or "error" in the place of the picture."""
        try:
            found = {"picture": self.timeline.picture(step)}
        except Exception as error:  # of a judge, a full disk: the reader is told, in the widget
            found = {"error": storable(f"{type(error).__name__}: {error}")[:2000]}
        return {"kind": "past", "step": step, **found}

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        if not isinstance(message, dict):
            return
        if message.get("kind") == "rewind":
            self.send(self.past(message.get("step")))
        elif message.get("kind") == "steps":
            self.send(self.steps(message.get("known")))

    def _repr_html_(self) -> Html:
        """Three steps side by side, for where there is no kernel; none is computed for this."""
        steps = [s for k, s in enumerate(self.timeline.steps) if k or self.timeline.kept(s)]
        if not steps:
            return tag("div", "No step to look back to yet.", style=SMALL)
        limit = self.timeline.course()["limit"]
        chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
        columns = [column(step, self.timeline.kept(step), limit) for step in chosen]
        words = (
            "Blue: the teacher raises the token, orange: it lowers it; "
            f"full colour from {limit:g} nats."
        )
        row = tag("div", *columns, style="display:flex;flex-wrap:wrap;gap:10px 24px")
        note = tag("div", words, style="opacity:.75")
        return tag("div", row, note, style=f"{SMALL};max-width:1100px")


def column(step: int, picture: dict[str, Any], limit: float) -> Html:
    """One step's attempt as coloured text."""
    spans = []
    for token, advantage in zip(picture["tokens"], picture["advantage"]):
        value = advantage or 0.0
        strength = min(1.0, abs(value) / limit)
        text, colour = visible(token), BLUE if value > 0 else ORANGE
        spans.append(coloured_span(text, colour, 0.75 * strength) if strength > 0.01 else text)
    more = f" … and {picture['cut']} more tokens" if picture["cut"] else ""
    when = "before the first step" if step == 0 else f"after step {step}"
    title = tag("div", f"{when}: {picture['sum']:.2f} nats apart", style="font-weight:600")
    return tag(
        "div", title, tag("div", *spans, more, style=TEXT), style="flex:1 1 260px;min-width:0"
    )
