"""A dashboard for a training run: buttons, knobs, a live chart and the newest attempts, as one small widget.

The page asks ("what is new since record 12?") and is answered; the thread that trains never sends anything. So a sleeping
tab costs nothing, no messages pile up, and the answer always has a live page behind it. The one exception: while `result()` keeps the
kernel busy, questions may not get through, so the waiting cell itself sends the news a few times a second.
"""

from __future__ import annotations

import collections
import contextvars
import math
import time
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from sdpo_lab.errors import check_range
from sdpo_lab.views.charts import Chart
from sdpo_lab.views.curves import ACTIVE, TEACHER, curve
from sdpo_lab.views.live import ENDED, LiveRun
from sdpo_lab.views.progress import describe

HERE = Path(__file__).parent
MOST_POINTS = 500  # in one message; a page that has missed more asks again
MOST_ATTEMPTS, MOST_CHARACTERS = 8, 2000
RECENT = 200  # steps among which a fall of the reward is looked for

# field, label, lowest and highest value of the slider, may it be zero
KNOBS = (("learning_rate", "Learning rate", 1e-6, 1e-1, False), ("teacher_update_rate", "Teacher rate", 1e-4, 1.0, True))


class Dashboard(anywidget.AnyWidget):
    """Hold `steps` more steps of `trainer` in your hands.

    The cell that shows it returns at once. `result()` waits for the end and returns the history, with or without a page;
    everything the page can do, `run` can do too: `dash.run.pause()`, `dash.run.set(learning_rate=1e-3)`.
    `seconds_between_news` (0.1 to 60) is how often the page asks. Pause before another cell uses the model: it would meet
    weights that change under it.
    """

    _esm = (HERE / "dashboard.js").read_text(encoding="utf-8")
    _css = (HERE / "dashboard.css").read_text(encoding="utf-8")
    setup = traitlets.Dict().tag(sync=True)  # what the page must know before the first answer arrives

    def __init__(self, trainer: Any, steps: int = 60, seconds_between_news: float = 0.3) -> None:
        check_range("seconds_between_news", seconds_between_news, float, 0.1, 60)
        self.run = LiveRun(trainer, steps)
        self.seconds_between_news = seconds_between_news
        self._pushed = 0  # index of the first record that no message has carried
        self._heard: tuple[float, contextvars.Context] | None = None  # when a page asked last, and on whose behalf we answered
        super().__init__(setup={"interval": round(1000 * seconds_between_news), "first": self.run.first, "steps": steps,
                                "knobs": knobs(trainer), "news": self.news(self.run.first)})
        self.on_msg(self._on_message)

    def result(self) -> Any:
        """Wait for the end of the run and return the history. Raises as `LiveRun.result` does."""
        return self.run.result(every=self.seconds_between_news, meanwhile=self._push)

    def summary(self) -> Chart:
        """The curve so far as a picture that needs no kernel to be seen again."""
        return curve(self.run.trainer.history, title=describe(self.run))

    def __repr__(self) -> str:
        return f"Dashboard({describe(self.run)})"

    def news(self, since: int, seen: int = -1) -> dict[str, Any]:
        """What a page needs that has the records before `since` and shows the attempts of record `seen` - 1. JSON-able."""
        run, records = self.run, self.run.trainer.history.records
        count = len(records)
        since = min(max(0, since), count)
        news = {"kind": "news", "from": since, "next": min(count, since + MOST_POINTS), "count": count,
                "points": [self._point(i, records[i]) for i in range(since, min(count, since + MOST_POINTS))],
                "state": run.state, "done": run.done, "steps": run.steps, "seconds": run.seconds, "each": run.seconds_per_step,
                "values": {name: finite(run.value(name)) for name, *_ in KNOBS if name in run.trainer.LIVE_FIELDS},
                "pending": sorted(run.pending), "warnings": worries(records), "error": error_text(run.exception)}
        if count and seen != count:
            news["attempts"] = {"seen": count, **newest_attempts(records[-1])}
        return news

    def _point(self, index: int, record: Any) -> dict[str, Any]:
        metrics = record.metrics
        changes = self.run.trainer.history.changes.get(record.step) or {}
        return {"i": index, "step": record.step, "reward": finite(record.reward), "loss": finite(record.loss),
                "teacher": finite(metrics.get(TEACHER)), "active": finite(metrics.get(ACTIVE)),
                "changes": {clean(k, 60): finite(v) if isinstance(v, (int, float)) else clean(v, 60) for k, v in changes.items()}}

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        # may be called on any thread and at any moment: only leave wishes and read
        if not isinstance(message, dict):
            return
        self._heard, notice = (time.monotonic(), contextvars.copy_context()), ""
        try:
            self._obey(message)
        except (ValueError, TypeError, RuntimeError) as error:
            notice = clean(error, 300)
        since, seen = (value if isinstance(value, int) else 0 for value in (message.get("since"), message.get("seen")))
        news = self.news(since, seen)
        self._pushed = news["next"]
        self.send({**news, "notice": notice})

    def _obey(self, message: dict[str, Any]) -> None:
        wish = message.get("kind")
        if wish in ("start", "pause", "step", "stop"):
            getattr(self.run, wish)()
        elif wish == "set":
            self.run.set(**{str(message.get("field")): message.get("value")})

    def _push(self) -> None:
        """Called by the waiting cell. Silent while questions get through; until one ever has, each push carries all a new page needs."""
        asked, context = self._heard or (-math.inf, contextvars.copy_context())
        if time.monotonic() - asked < 1 + 2 * self.seconds_between_news and self.run.state not in ENDED:
            return
        records = self.run.trainer.history.records
        news = self.news(self._pushed if self._heard else max(0, len(records) - MOST_POINTS))
        # Sent in the name of the page's last question: a kernel with subshells delivers the next click to the shell that sent last,
        # and the shell of the waiting cell would let it wait.
        context.copy().run(self.send, {**news, "cut": not self._heard, "pushed": True, "notice": ""})
        self._pushed = news["next"]


def knobs(trainer: Any) -> list[dict[str, Any]]:
    """The sliders' ranges, widened where the trainer's own value lies outside, and why one would do nothing."""
    found = []
    for name, label, low, high, zero in KNOBS:
        if name in trainer.LIVE_FIELDS:
            value = getattr(trainer.config, name)
            bounds = {"low": min(low, value or low), "high": max(high, value)}
            found.append({"field": name, "label": label, "zero": zero, "idle": why_idle(name, trainer.config), **bounds})
    return found


def why_idle(field: str, config: Any) -> str:
    """In words, why moving a knob changes nothing in this configuration; "" when it does."""
    if field != "teacher_update_rate":
        return ""
    if getattr(config, "distillation_weight", 1) == 0:
        return "GRPO has no teacher"
    kind = getattr(config, "teacher_model_kind", "ema")
    return "" if kind == "ema" else f"a {kind} teacher has no rate"


def worries(records: list[Any]) -> list[str]:
    """What somebody who watches should know of the newest step, in words."""
    if not records:
        return []
    newest, words = records[-1], []
    if newest.metrics.get(ACTIVE) == 0:
        reasons = collections.Counter(r.why for r in newest.rollouts if getattr(r, "why", ""))
        nothing = not any(r.feedback or (r.reward or 0) > 0 for r in newest.rollouts)
        words.append("No success and no feedback in this batch: nothing to learn from." if nothing or not reasons else
                     f"No attempt of this batch took part in the update: {reasons.most_common(1)[0][0]}.")
    elif not math.isfinite(newest.loss):
        words.append("The loss of this step was not a number; the update was skipped.")
    rewards = [r.reward for r in records[-RECENT:]]
    if len(rewards) >= 10:
        best, now = max(sum(rewards[i:i + 5]) / 5 for i in range(len(rewards) - 4)), sum(rewards[-5:]) / 5
        if now < best - 0.25:
            words.append(f"The reward has fallen from {best:.2f} to {now:.2f} (means of 5 steps): a smaller learning rate "
                         "or a slower teacher usually helps.")
    return words


def newest_attempts(record: Any) -> dict[str, Any]:
    """The first group of a step as plain data; texts are cut to `MOST_CHARACTERS`."""
    rollouts = record.rollouts
    group = [r for r in rollouts if r.problem.id == rollouts[0].problem.id] if rollouts else []
    question = group[0].problem.messages[-1]["content"] if group and group[0].problem.messages else ""
    return {"step": record.step, "question": clean(question), "more": max(0, len(group) - MOST_ATTEMPTS),
            "list": [{"text": clean(r.text), "feedback": clean(r.feedback), "reward": finite(r.reward), "active": bool(r.active)}
                     for r in group[:MOST_ATTEMPTS]]}


def error_text(error: BaseException | None) -> str:
    return clean(f"{type(error).__name__}: {error}", MOST_CHARACTERS) if error is not None else ""


def clean(text: Any, most: int = MOST_CHARACTERS) -> str:
    """At most `most` characters that JSON can carry; half a surrogate pair, which a byte tokenizer can make, becomes "?"."""
    text = str(text)
    cut = text[:most] + (f" … (+{len(text) - most} characters)" if len(text) > most else "")
    return cut.encode("utf-8", "replace").decode("utf-8")


def finite(value: Any) -> Any:
    """None for what JSON has no word for."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
