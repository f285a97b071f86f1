"""A dashboard for a training run: buttons, knobs, live charts and the newest attempts.

The page asks ("what is new since record 12?") and is answered; the thread that trains never sends
anything. So a sleeping tab costs nothing, no messages pile up, and the answer always has a live
page behind it. The one exception: while `result()` keeps the kernel busy, questions may not get
through, so the waiting cell itself sends the news a few times a second.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from sdpo_lab.analysis import pictures
from sdpo_lab.core.checks import check_kind, check_range, short_repr
from sdpo_lab.live import knobs
from sdpo_lab.live.diagnostics import worries
from sdpo_lab.live.measurements import STUDENT, TEACHER
from sdpo_lab.live.progress import CurvePicture, describe
from sdpo_lab.live.run import ENDED, LiveRun
from sdpo_lab.views.charts import Chart
from sdpo_lab.views.curves import curve
from sdpo_lab.views.page import style, widget
from sdpo_lab.views.token_data import finite

MOST_POINTS = 500  # in one message; a page that has missed more asks again
MOST_ATTEMPTS, MOST_CHARACTERS = 8, 2000
PRESENT = 3.0  # seconds after its last question for which a page counts as there

# series of the charts: what the page calls it, and the metric of the record
METRICS = {
    "held_out": STUDENT,
    "teacher": TEACHER,
    "active": "active_fraction",
    "entropy": "entropy",
    "length": "completion_length",
    "grad_norm": "grad_norm",
}
COLUMNS = ("step", "reward", "loss", *METRICS)


class Dashboard(anywidget.AnyWidget):
    """Hold `steps` more steps of `trainer` in your hands.

    evaluate_every, evaluate_n, folder
        as in `LiveRun`: every so many steps student and teacher are measured on test problems,
        and the run saves itself in `folder`
    timeline
        a `Timeline` of this trainer: it watches every step, and the page can rewind
    seconds_between_news
        0.1 to 60, how often the page asks while nothing is waited for. Each question costs the
        training time (benchmarks/README.md)

    The cell that shows it returns at once. `result()` waits for the end and returns the history,
    with or without a page; everything the page can do, `run` can do too: `dash.run.pause()`,
    `dash.run.set(learning_rate=1e-3)`, `dash.run.save()`. Pause before another cell uses the
    model: it would meet weights that change under it.
    """

    _esm = widget("dashboard")
    _css = style("dashboard", "rewind")
    setup = traitlets.Dict().tag(sync=True)  # what the page must know before the first answer

    def __init__(
        self,
        trainer: Any,
        steps: int = 60,
        seconds_between_news: float = 1.0,
        *,
        evaluate_every: int = 10,
        evaluate_n: int = 32,
        folder: str | Path | None = None,
        timeline: Any = None,
    ) -> None:
        check_range("seconds_between_news", seconds_between_news, float, 0.1, 60)
        check_kind("folder", folder, (str, Path, type(None)), "the path of a folder, or None")
        check_timeline(timeline, trainer, folder)
        self.run = LiveRun(
            trainer,
            steps,
            evaluate_every=evaluate_every,
            evaluate_n=evaluate_n,
            folder=folder,
            watchers=() if timeline is None else (timeline.watch,),
        )
        self.timeline, self.seconds_between_news = timeline, seconds_between_news
        self._pushed = 0  # index of the first record that no message has carried
        # when a page asked last, and on whose behalf we answered
        self._heard: tuple[float, contextvars.Context] | None = None
        # what takes longer than an answer may: sent with the news that finds it done
        self._asked: list[tuple[dict[str, Any], Future]] = []
        self._asking = threading.Lock()
        super().__init__(
            setup={
                "interval": round(1000 * seconds_between_news),
                "first": self.run.first,
                "steps": steps,
                "knobs": knobs.knobs(trainer),
                "rewind": timeline is not None,
                "columns": COLUMNS,
                "evaluate": evaluate_every,
                "news": self.news(self.run.first),
            }
        )
        self.on_msg(self._on_message)

    def result(self) -> Any:
        """Wait for the end of the run and return the history. Raises as `LiveRun.result` does.

        In a notebook whose page does not answer, the curve so far is drawn here as a picture, at
        most once a second.
        """
        began, picture = time.monotonic(), CurvePicture(self.summary)

        def meanwhile() -> None:
            self._push()
            heard = self._heard[0] if self._heard else -math.inf
            # Where there is a page, it depends on the kernel whether its questions get through
            # while a cell waits
            if heard > began - PRESENT:
                picture.clear()
            elif time.monotonic() - began > PRESENT:
                picture.update(last=self.run.state in ENDED)

        return self.run.result(every=self.seconds_between_news, meanwhile=meanwhile)

    def summary(self) -> Chart:
        """The curve so far as a picture that needs no kernel to be seen again."""
        return curve(
            self.run.trainer.history,
            title=describe(self.run),
            note=" ".join(worries(self.run.trainer.history.records, self.run.trainer.config)),
        )

    def __repr__(self) -> str:
        return f"Dashboard({describe(self.run)})"

    def news(self, since: int, seen: int = -1) -> dict[str, Any]:
        """What a page needs that has the records before `since`; JSON-able.

        The attempts it shows are those of the record before `seen`.
        """
        run, records = self.run, self.run.trainer.history.records
        count, config, saved = run.count, knobs.as_next(run), run.saved
        since = min(max(0, since), count)
        until = min(count, since + MOST_POINTS)
        warnings = worries(records[max(0, count - 200) : count], config)
        if (saving := run.trainer.autosaves) and saving.trouble:
            words = f"The run could not be saved, and goes on: {saving.trouble}"
            warnings.append(clean(words, 400))
        news = {
            "kind": "news",
            "from": since,
            "next": until,
            "count": count,
            "points": [point(r) for r in records[since:until]],
            "changes": self._changes(records[since:until]),
            "state": run.state,
            "done": run.done,
            "steps": run.steps,
            "seconds": run.seconds,
            "each": run.seconds_per_step,
            "knobs": self._knobs(config),
            "warnings": warnings,
            "error": error_text(run.exception),
            "saved": saved and [saved[0], clean(saved[1].resolve(), 400)],
            "past": spans(self.timeline.steps) if self.timeline else [],
        }
        if count and seen != count:
            news["attempts"] = {"seen": count, **newest_attempts(records[count - 1])}
        return news

    def _knobs(self, config: Any) -> dict[str, list[Any]]:
        """{knob: [its value at the next step, does it wait for that, why it does nothing]}"""
        specs = self.setup.get("knobs") or knobs.knobs(self.run.trainer)
        waiting = self.run.pending
        found = {}
        for name in (spec["field"] for spec in specs):
            waits = any(f in waiting for f in knobs.fields_of(name))
            value, idle = knobs.value_of(name, config), knobs.why_idle(name, config)
            found[name] = [value, waits, idle]
        return found

    def _changes(self, records: list[Any]) -> dict[str, dict[str, Any]]:
        """What took effect at the steps of these records; {"12": {"learning rate": 0.001}}."""
        known = self.run.trainer.history.changes

        def named(fields: dict[str, Any]) -> dict[str, Any]:
            return {
                clean(name, 60).replace("_", " "): finite(value)
                if isinstance(value, (int, float))
                else clean(value, 60)
                for name, value in knobs.told(fields).items()
            }

        return {str(r.step): named(known[r.step]) for r in records if r.step in known}

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        # may be called on any thread and at any moment: only leave wishes and read
        if not isinstance(message, dict):
            return
        self._heard, notice = (time.monotonic(), contextvars.copy_context()), ""
        try:
            self._obey(message)
        except (ValueError, TypeError, RuntimeError) as error:
            notice = clean(error, 300)
        known = [message.get(name) for name in ("since", "seen")]
        news = self.news(*(value if isinstance(value, int) else 0 for value in known))
        self._pushed = news["next"]
        self.send({**news, "notice": notice})
        self._send_what_is_done()

    def _obey(self, message: dict[str, Any]) -> None:
        wish = message.get("kind")
        if wish in ("start", "pause", "step", "stop"):
            getattr(self.run, wish)()
        elif wish == "set":
            self.run.set(**knobs.change(message.get("field"), message.get("value")))
        elif wish == "save":
            self._ask({"kind": "saved"}, self.run.save())
        elif wish == "credit":
            step, index = whole(message, "step"), whole(message, "index")
            answer = self.run.errand(lambda: self._credit(step, index))
            self._ask({"kind": "credit", "step": step, "index": index}, answer)
        elif wish == "rewind" and self.timeline is not None:
            step = whole(message, "step")
            answer = in_background(lambda: {"picture": self.timeline.picture(step)})
            self._ask({"kind": "past", "step": step}, answer)

    def _ask(self, what: dict[str, Any], answer: Future) -> None:
        with self._asking:
            self._asked.append((what, answer))

    def _credit(self, step: int, index: int) -> dict[str, Any]:
        from sdpo_lab.analysis.pictures import picture
        from sdpo_lab.live.measurements import credit_of

        return {
            "picture": picture(credit_of(self.run.trainer, step, index)),
            "after": len(self.run.trainer.history.records),
            "teacher": self.run.trainer.teacher is not None,
        }

    def _send_what_is_done(self) -> None:
        with self._asking:  # two messages may be handled at once
            done = [entry for entry in self._asked if entry[1].done()]
            self._asked = [entry for entry in self._asked if entry not in done]
        for what, future in done:
            error = future.exception()
            found = future.result() if error is None else None
            found = found if isinstance(found, dict) else {}
            self.send({**what, **found, "error": error_text(error)})

    def _push(self) -> None:
        """Called by the waiting cell. Silent while questions get through.

        Until one ever has, each push carries all a new page needs.
        """
        asked, context = self._heard or (-math.inf, contextvars.copy_context())
        recent = time.monotonic() - asked < 1 + 2 * self.seconds_between_news
        if recent and self.run.state not in ENDED:
            return
        news = self.news(self._pushed if self._heard else max(0, self.run.count - MOST_POINTS))
        # Sent in the name of the page's last question: a kernel with subshells delivers the next
        # click to the shell that sent last, and the shell of the waiting cell would let it wait.
        message = {**news, "cut": not self._heard, "pushed": True, "notice": ""}
        context.copy().run(self.send, message)
        self._pushed = news["next"]


def check_timeline(timeline: Any, trainer: Any, folder: Any) -> None:
    """Raise unless it is None, or a Timeline of the same trainer in another folder."""
    if timeline is None:
        return
    needed = "timeline must be a Timeline of the same trainer, as Timeline(trainer) makes it"
    if not (callable(getattr(timeline, "watch", None)) and hasattr(timeline, "trainer")):
        raise TypeError(f"{needed}, or None; got {short_repr(timeline)}")
    if timeline.trainer is not trainer:
        raise ValueError(f"{needed}; got {short_repr(timeline)} of another one")
    if folder is not None and timeline.folder.resolve() == Path(folder).resolve():
        raise ValueError(
            f"folder must be another than the timeline's, {str(folder)!r}: a run keeps its newest "
            "checkpoints only, and would delete the timeline's"
        )


def in_background(work: Any) -> Future:
    """What touches nothing of the live run, on a thread of its own."""
    done: Future = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # the page is told
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name="sdpo_lab-rewind").start()
    return done


def point(record: Any) -> list[float | None]:
    """A record in the order of `COLUMNS`, to five digits; None where it has no number."""
    values = [record.reward, record.loss, *map(record.metrics.get, METRICS.values())]
    return [record.step, *map(digits, values)]


def spans(steps: list[int]) -> list[list[int]]:
    """Steps as [first, last, by]: as many as there are gaps, since nearly all follow each other."""
    found: list[list[int]] = []
    for s in steps:
        if found and found[-1][2] == 0:
            found[-1][1:] = [s, s - found[-1][0]]
        elif found and s - found[-1][1] == found[-1][2]:
            found[-1][1] = s
        else:
            found.append([s, s, 0])
    return [[a, b, by or 1] for a, b, by in found]


def whole(message: dict[str, Any], name: str) -> int:
    value = message.get(name)
    check_range(name, value, int, 0, 10**9)
    return value


def newest_attempts(record: Any) -> dict[str, Any]:
    """The first group of a step as plain data; texts are cut to `MOST_CHARACTERS`."""
    rollouts = record.rollouts
    group = [r for r in rollouts if r.problem.id == rollouts[0].problem.id] if rollouts else []
    messages = group[0].problem.messages if group else []
    question = messages[-1]["content"] if messages else ""
    return {
        "step": record.step,
        "question": clean(question),
        "more": max(0, len(group) - MOST_ATTEMPTS),
        "list": [
            {
                "text": clean(r.text),
                "feedback": clean(r.feedback),
                "reward": finite(r.reward),
                "active": bool(r.active),
            }
            for r in group[:MOST_ATTEMPTS]
        ],
    }


def error_text(error: BaseException | None) -> str:
    return clean(f"{type(error).__name__}: {error}", MOST_CHARACTERS) if error is not None else ""


def clean(text: Any, most: int = MOST_CHARACTERS) -> str:
    return pictures.clean(str(text), most)


def digits(value: Any) -> float | None:
    """A number to five digits, None for none."""
    return None if finite(value) is None else float(f"{value:.5g}")
