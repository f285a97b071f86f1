"""A time slider over a run: one attempt, token by token, as student and teacher saw it after any step.

The page asks ("step 12", "are there more steps?") and is answered; nothing is sent unasked.
"""

from __future__ import annotations

import html
from typing import Any

import anywidget
import traitlets

from sdpo_lab.analysis.timeline import Timeline
from sdpo_lab.core.checks import shown
from sdpo_lab.views.page import source
from sdpo_lab.views.tokens import BLUE, ORANGE, visible

ALONE = """
function render({ model, el }) {
  const view = rewind(el, (message) => model.send(message)), root = el.querySelector(".sdpo-rewind");
  let known = "", asked = 0;
  root.classList.add("alone");
  const receive = (message) => {
    if (message.kind === "steps") asked = 0;
    if (message.kind === "past") view.receive(message);
    else if (message.kind === "steps" && message.mark !== known) { known = message.mark; view.update(message.steps); }
  };
  const tick = () => {  // one question at a time, so none pile up
    if (document.hidden || Date.now() - asked < 5000) return;
    asked = Date.now();
    model.send({ kind: "steps", known });
  };
  model.on("msg:custom", receive);
  receive(model.get("setup"));
  const timer = setInterval(tick, 1000);
  tick();
  return () => { clearInterval(timer); view.destroy(); model.off("msg:custom", receive); };
}
export default { render };
"""


class Rewind(anywidget.AnyWidget):
    """The steps of a `Timeline`, and its attempt at the one the slider is at.

    Keyboard: Tab to the slider, arrow keys go one step back or on, Home and End to the first and the newest; Tab on to the tokens, arrow keys along them. Whoever looks
    at the newest step follows the run. Without a kernel the saved output shows three steps side by side, of those there were when the cell ran.
    """

    _esm = source("dom.js", "strip.js", "rewind.js") + ALONE
    _css = source("rewind.css")
    setup = traitlets.Dict().tag(sync=True)  # the steps there were when it was made

    def __init__(self, timeline: Timeline) -> None:
        if not isinstance(timeline, Timeline):
            raise TypeError(
                f"timeline must be a sdpo_lab.timeline.Timeline, as Timeline(trainer) makes it; got {type(timeline).__name__}: {shown(timeline)}"
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
        """{"kind": "past", "step", "picture"}; "error" in the place of the picture where there is none."""
        try:
            return {"kind": "past", "step": step, "picture": self.timeline.picture(step)}
        except Exception as error:  # of a judge, a full disk: the reader is told, in the widget
            return {
                "kind": "past",
                "step": step,
                "error": f"{type(error).__name__}: {error}"[:2000]
                .encode("utf-8", "replace")
                .decode("utf-8"),
            }

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        if not isinstance(message, dict):
            return
        if message.get("kind") == "rewind":
            self.send(self.past(message.get("step")))
        elif message.get("kind") == "steps":
            self.send(self.steps(message.get("known")))

    def _repr_html_(self) -> str:
        """Three steps side by side, for where there is no kernel; steps that would have to be computed are left out."""
        steps = [s for k, s in enumerate(self.timeline.steps) if k or self.timeline.kept(s)]
        if not steps:
            return '<div style="font-family:sans-serif;font-size:13px">No step to look back to yet.</div>'
        limit = self.timeline.course()["limit"]
        columns = "".join(
            column(step, self.timeline.kept(step), limit)
            for step in sorted({steps[0], steps[len(steps) // 2], steps[-1]})
        )
        return (
            f'<div style="font-family:sans-serif;font-size:13px;max-width:1100px"><div style="display:flex;flex-wrap:wrap;gap:10px 24px">{columns}</div>'
            f'<div style="opacity:.75">Blue: the teacher raises the token, orange: it lowers it; full colour from {limit:g} nats.</div></div>'
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self._repr_html_()}, metadata


def column(step: int, picture: dict[str, Any], limit: float) -> str:
    """One step's attempt as coloured text whose style stands in it, where sanitisers leave it."""
    spans = []
    for token, advantage in zip(picture["tokens"], picture["advantage"]):
        strength = min(1.0, abs(advantage or 0.0) / limit)
        colour = (
            f"background:rgba({BLUE if (advantage or 0) > 0 else ORANGE},{0.75 * strength:.2f})"
            if strength > 0.01
            else ""
        )
        spans.append(f'<span style="{colour}">{visible(token)}</span>')
    more = f" … and {picture['cut']} more tokens" if picture["cut"] else ""
    title = html.escape("before the first step" if step == 0 else f"after step {step}")
    return (
        f'<div style="flex:1 1 260px;min-width:0"><div style="font-weight:600">{title}: {picture["sum"]:.2f} nats apart</div>'
        f'<div style="font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7">{"".join(spans)}{more}</div></div>'
    )
