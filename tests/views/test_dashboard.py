"""The kernel's half of the dashboard: what it answers, what it never does, and what it survives."""

from __future__ import annotations

import json
import math
import xml.dom.minidom

import pytest

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.records import History
from sdpo_lab.live.diagnostics import worries
from sdpo_lab.views import Dashboard, curve
from sdpo_lab.views.curves import thin
from sdpo_lab.views.dashboard import MOST_ATTEMPTS, MOST_CHARACTERS, MOST_POINTS, clean, spans

HOSTILE = "</script><img src=x onerror=alert(1)>\n\u202egnp.exe\x00\ud83d<|im_end|>"


@pytest.fixture
def dashboard(fake, monkeypatch):
    """dashboard(steps=..., **fake trainer): a Dashboard whose messages land in its `.sent`, as JSON that must be valid."""

    def build(steps: int = 5, seconds_between_news: float = 1.0, **trainer) -> Dashboard:
        dash = Dashboard(fake(**trainer), steps, seconds_between_news, evaluate_every=0)
        dash.sent = []
        monkeypatch.setattr(
            dash,
            "send",
            lambda m: dash.sent.append(
                json.loads(json.dumps(m, allow_nan=False, ensure_ascii=False).encode())
            ),
        )
        return dash

    return build


def tell(dash: Dashboard, kind: str, since: int = 0, seen: int = -1, **more) -> dict:
    dash._on_message(dash, {"kind": kind, "since": since, "seen": seen, **more}, [])
    return dash.sent[-1]


def test_what_the_page_is_told(dashboard):
    dash = dashboard(3)
    assert dash.setup["steps"] == 3 and dash.setup["interval"] == 1000
    assert [k["field"] for k in dash.setup["knobs"]][:3] == [
        "learning_rate",
        "teacher_update_rate",
        "teacher_model_kind",
    ]
    assert tell(dash, "tick")["state"] == "ready" and "attempts" not in dash.sent[-1]
    dash.result()
    news = tell(dash, "tick", since=1)
    assert (news["state"], news["from"], news["next"], news["count"], news["done"]) == (
        "finished",
        1,
        3,
        3,
        3,
    )
    first, second = (dict(zip(dash.setup["columns"], row, strict=True)) for row in news["points"])
    assert (
        (first["step"], second["step"]) == (2, 3)
        and first["active"] == 1.0
        and first["teacher"] is None
    )
    assert news["attempts"]["step"] == 3 and news["attempts"]["question"] == "Will it rain in Oslo?"
    assert news["attempts"]["list"][0] == {
        "text": "weather(city='Oslo')",
        "feedback": "TypeError: no",
        "reward": 0.0,
        "active": True,
    }
    assert "attempts" not in tell(
        dash, "tick", since=3, seen=news["attempts"]["seen"]
    )  # nothing new, nothing sent


def test_nobody_asks_nothing_is_sent(dashboard):
    dash = dashboard(5)
    dash.run.start()
    assert dash.run.wait(5) and dash.run.state == "finished"
    assert dash.sent == []


def test_the_waiting_cell_sends_the_news_at_its_own_pace(dashboard):
    dash = dashboard(40, seconds=0.02, seconds_between_news=0.3)  # about a second
    assert len(dash.result()) == 40
    assert 2 <= len(dash.sent) <= 8
    assert dash.sent[-1]["state"] == "finished" and dash.sent[-1]["cut"]
    assert (
        len(dash.sent[-1]["points"]) == 40
    )  # nobody has asked yet: a page born late still gets all


def test_a_page_that_gets_through_is_not_pushed_at(dashboard):
    dash = dashboard(20, seconds=0.02)
    tell(dash, "tick")
    dash.result()
    assert len(dash.sent) == 2 and dash.sent[-1]["state"] == "finished"  # the answer, and the end


def test_a_page_that_asked_once_and_then_no_more_is_sent_only_what_is_new(dashboard):
    dash = dashboard(40, seconds=0.02, seconds_between_news=0.3)
    tell(dash, "tick")
    dash._heard = (-math.inf, dash._heard[1])  # as if a busy kernel had kept it waiting
    dash.result()
    pushes = dash.sent[1:]
    assert 2 <= len(pushes) <= 8 and not any(m["cut"] for m in pushes)
    assert sum(len(m["points"]) for m in pushes) == 40
    assert [m["from"] for m in pushes[1:]] == [m["next"] for m in pushes[:-1]]


def test_answers_are_bounded(dashboard, fake):
    dash = dashboard(5, seconds=0, text="x" * 100_000, feedback="y" * 100_000)
    trainer = dash.run.trainer
    for _ in range(MOST_POINTS + 7):
        trainer.step()
    news = tell(dash, "tick")
    assert len(news["points"]) == MOST_POINTS and (news["next"], news["count"]) == (
        MOST_POINTS,
        MOST_POINTS + 7,
    )
    assert len(tell(dash, "tick", since=news["next"])["points"]) == 7
    assert len(news["attempts"]["list"]) == MOST_ATTEMPTS
    assert all(
        len(a["text"]) < MOST_CHARACTERS + 40 and a["text"].endswith("characters)")
        for a in news["attempts"]["list"]
    )
    assert len(json.dumps(dash.sent[-1])) < 100_000


def test_buttons_and_sliders(dashboard, until):
    dash = dashboard(50)
    tell(dash, "start")
    until(lambda: dash.run.done >= 2)
    tell(dash, "pause")
    assert dash.run.wait(5) and tell(dash, "tick")["state"] == "paused"
    done = dash.run.done
    news = tell(dash, "set", field="learning_rate", value=1e-3)
    assert news["knobs"]["learning_rate"] == [1e-3, True, ""] and not news["notice"]
    tell(dash, "step")
    assert dash.run.wait(5) and dash.run.done == done + 1
    news = tell(dash, "tick")
    assert news["knobs"]["learning_rate"] == [1e-3, False, ""] and news["changes"] == {
        str(done + 1): {"learning rate": 1e-3}
    }
    tell(dash, "stop")
    assert dash.run.state == "stopped" and len(dash.result()) == done + 1


@pytest.mark.parametrize(
    "message, words",
    [
        ({"kind": "set", "field": "learning_rate", "value": -1.0}, "learning_rate must be from"),
        (
            {"kind": "set", "field": "learning_rate", "value": None},
            "learning_rate must be a number",
        ),
        ({"kind": "set", "field": "trainer", "value": 1}, "has no 'trainer'"),
        ({"kind": "set"}, "has no 'None'"),
        ({"kind": "__init__"}, ""),
        ({"kind": ["start"]}, ""),
        ({"kind": "tick", "since": "x", "seen": None}, ""),
        ({}, ""),
        ({"kind": "tick", "since": -5}, ""),
        ({"kind": "tick", "since": 10**30}, ""),
    ],
)
def test_strange_messages_are_answered_and_harmless(dashboard, message, words):
    dash = dashboard(5)
    dash._on_message(dash, message, [])
    assert (
        words in dash.sent[-1]["notice"]
        and bool(words) == bool(dash.sent[-1]["notice"])
        and dash.run.state == "ready"
    )


def test_messages_that_are_no_dictionary_are_ignored(dashboard):
    dash = dashboard(5)
    for message in (None, "start", [1], 3):
        dash._on_message(dash, message, [])
    assert dash.sent == []


def test_pressing_start_after_the_end_is_a_notice(dashboard):
    dash = dashboard(1)
    dash.result()
    assert "finished after 1 of 1 steps" in tell(dash, "start")["notice"]


def test_a_failed_run_is_told_in_words_and_raised(dashboard):
    dash = dashboard(5, fail_at=3, error=ZeroDivisionError("the <judge> broke"))
    with pytest.raises(ZeroDivisionError):
        dash.result()
    news = tell(dash, "tick")
    assert (
        news["state"] == "failed"
        and news["error"] == "ZeroDivisionError: the <judge> broke"
        and news["done"] == 2
    )


def test_hostile_text_travels_as_data(dashboard):
    dash = dashboard(1, text=HOSTILE, feedback=HOSTILE)
    dash.result()
    attempt = tell(dash, "tick")["attempts"]["list"][0]
    assert (
        attempt["text"] == HOSTILE.replace("\ud83d", r"\ud83d") == attempt["feedback"]
    )  # half a surrogate pair is all that JSON cannot carry
    assert "script" not in dash.summary()._repr_html_()


def test_the_page_never_makes_html_of_text():
    code = Dashboard._esm.lower()
    for word in (
        "innerhtml",
        "outerhtml",
        "insertadjacenthtml",
        "document.write",
        "eval(",
        "http://cdn",
        "https://",
        "import(",
    ):
        assert word not in code.replace("http://www.w3.org/2000/svg", ""), word
    assert len(Dashboard._esm) < 48 * 1024 and Dashboard._esm.count("export default") == 1


def test_numbers_json_has_no_word_for(dashboard):
    dash = dashboard(
        2,
        metrics={"active_fraction": math.nan, "teacher_accuracy": math.inf},
        rewards=[math.nan, 0.5],
    )
    dash.result()
    point = dict(zip(dash.setup["columns"], tell(dash, "tick")["points"][0]))
    assert (point["reward"], point["active"], point["teacher"]) == (None, None, None)
    assert "<svg" in dash.summary()._repr_html_()


@pytest.mark.parametrize(
    "trainer, words",
    [
        (
            {"metrics": {"active_fraction": 0.0}, "feedback": "", "rewards": [0.0] * 12},
            "No success and no feedback in this batch: nothing to learn from.",
        ),
        (
            {"metrics": {"active_fraction": 1.0}, "rewards": [0.9] * 7 + [0.1] * 5},
            "The reward has fallen from 0.90 to 0.10",
        ),
        ({"metrics": {"active_fraction": 1.0}}, ""),
    ],
)
def test_warnings_in_words(dashboard, trainer, words):
    dash = dashboard(12, seconds=0, **trainer)
    if not trainer["metrics"]["active_fraction"]:
        step = dash.run.trainer.step

        def failing_step():
            record = step()
            for r in record.rollouts:
                r.reward, r.feedback = 0.0, ""

        dash.run.trainer.step = failing_step
    dash.result()
    said = " ".join(tell(dash, "tick")["warnings"])
    assert words in said and bool(words) == bool(said)


def test_an_inactive_batch_says_why(dashboard):
    dash = dashboard(1, metrics={"active_fraction": 0.0})
    record = dash.result().records[-1]
    record.rollouts[0].why = "no sibling succeeded, and include_environment_feedback is off"
    assert "include_environment_feedback is off" in worries([record])[0]
    assert worries([]) == []


def test_a_trainer_that_has_a_history_already(dashboard, fake):
    trainer = fake()
    for _ in range(4):
        trainer.step()
    dash = Dashboard(trainer, 2, evaluate_every=0)
    assert dash.setup["first"] == 4 and dash.setup["news"]["count"] == 4
    assert len(dash.result()) == 6
    assert [p[0] for p in dash.news(0)["points"]] == [1, 2, 3, 4, 5, 6]


def test_two_dashboards(dashboard):
    a, b = dashboard(4), dashboard(4, fail_at=2)
    a.run.start()
    with pytest.raises(ValueError):
        b.result()
    assert len(a.result()) == 4 and a.news(0)["error"] == "" and b.news(0)["error"]


@pytest.mark.parametrize(
    "fields, knob, words",
    [
        ({}, "teacher_update_rate", ""),
        ({}, "distillation_weight", ""),
        ({}, "template", ""),
        ({"teacher_model_kind": "frozen"}, "teacher_update_rate", "a frozen teacher has no rate"),
        ({"teacher_model_kind": "trust_region"}, "teacher_update_rate", ""),
        ({"distillation_weight": 0.0}, "teacher_update_rate", "GRPO has no teacher"),
        ({"distillation_weight": 0.0}, "template", "GRPO has no teacher"),
        ({"distillation_weight": 0.0}, "include_environment_feedback", "GRPO has no teacher"),
        ({"distillation_weight": 0.0}, "learning_rate", ""),
        (
            {"distillation_mode": "sequence", "distillation_alpha": 1.0},
            "distillation_alpha",
            "'sequence' follows the reverse KL",
        ),
    ],
)
def test_a_knob_that_does_nothing_says_why(fake, fields, knob, words):
    trainer = fake()
    trainer.config = trainer.config.replace(live=True, **fields)
    assert Dashboard(trainer).news(0)["knobs"][knob][2] == words


def test_a_change_that_waits_already_decides_which_knobs_do_something(dashboard):
    dash = dashboard(5)
    news = tell(dash, "set", field="distillation_weight", value=0.0)
    assert news["knobs"]["distillation_weight"] == [0.0, True, ""] and news["knobs"][
        "teacher_model_kind"
    ] == ["ema", False, "GRPO has no teacher"]


def test_templates_by_name(dashboard, fake):
    dash = dashboard(2)
    assert dash.news(0)["knobs"]["template"] == ["paper", False, ""]
    assert tell(dash, "set", field="template", value="trl")["knobs"]["template"] == [
        "trl",
        True,
        "",
    ]
    dash.result()
    assert dash.run.trainer.config.solution_template == SDPOConfig.preset("trl").solution_template
    assert dash.news(0)["changes"] == {"1": {"template": "trl"}}
    assert "template trl" in dash.summary()._repr_html_()
    assert (
        "template must be one of 'paper', 'trl'; got 'latex'"
        in tell(dashboard(2), "set", field="template", value="latex")["notice"]
    )
    trainer = fake()
    trainer.config = trainer.config.replace(feedback_template="\nIt said: {feedback_raw}")
    own = Dashboard(trainer)
    assert (
        own.news(0)["knobs"]["template"][0] == "your own"
        and "your own" in next(k for k in own.setup["knobs"] if k["field"] == "template")["choices"]
    )


def test_every_knob_sets_what_it_shows(dashboard):
    """Whatever the page may send of a knob's own range is taken, and is what the next step uses."""
    dash = dashboard(1)
    for knob in dash.setup["knobs"]:
        for value in {
            "slider": [knob.get("low"), knob.get("high")],
            "choice": knob.get("choices"),
            "switch": [False, True],
        }[knob["kind"]]:
            news = tell(dash, "set", field=knob["field"], value=value)
            assert news["notice"] == "" and news["knobs"][knob["field"]][0] == value, knob


def test_sliders_reach_an_unusual_value(fake):
    trainer = fake()
    trainer.config = trainer.config.replace(learning_rate=1e-9, teacher_update_rate=0.0)
    rate, teacher = Dashboard(trainer).setup["knobs"][:2]
    assert rate["low"] == 1e-9 and teacher["low"] == 1e-4 and teacher["zero"]


def answer(dash, kind):
    """The last answer of a kind that takes longer than a question may: sent with that question when it was fast, else with a later one."""
    tell(dash, "tick")
    return [message for message in dash.sent if message["kind"] == kind][-1]


def test_saving(dashboard, until, tmp_path):
    dash = dashboard(9)
    dash.run.folder = tmp_path / "run"
    tell(dash, "step")
    dash.run.wait(5)
    tell(dash, "save")
    until(lambda: dash.run.saved)
    assert dash.run.wait(5) and dash.run.trainer.saves == [(str(tmp_path / "run"), 1)]
    assert answer(dash, "saved")["error"] == "" and dash.news(0)["saved"] == [
        1,
        str(tmp_path / "run"),
    ]
    dash.run.trainer.save = lambda *a, **k: (_ for _ in ()).throw(
        OSError("No space left on <device>")
    )
    tell(dash, "save")
    dash.run.wait(5)
    assert (
        answer(dash, "saved")["error"] == "OSError: No space left on <device>"
        and dash.run.state == "paused"
    )


def test_tokens_of_an_attempt(dashboard, monkeypatch):
    dash = dashboard(3, seconds=0.02)
    monkeypatch.setattr(
        dash,
        "_credit",
        lambda step, index: {
            "picture": {"tokens": ["a"]},
            "after": step,
            "teacher": True,
            "index_": index,
        },
    )
    tell(dash, "credit", step=1, index=2)
    dash.run.wait(5)
    assert answer(dash, "credit") == {
        "kind": "credit",
        "step": 1,
        "index": 2,
        "picture": {"tokens": ["a"]},
        "after": 1,
        "teacher": True,
        "index_": 2,
        "error": "",
    }
    tell(dash, "tick")
    assert dash.run.state == "ready" and [m["kind"] for m in dash.sent].count("credit") == 1
    monkeypatch.undo()
    dash.sent = []
    monkeypatch.setattr(dash, "send", dash.sent.append)
    tell(dash, "credit", step=7, index=0)
    dash.run.wait(5)
    assert (
        answer(dash, "credit")["error"]
        == "ValueError: step 7 has no attempt 0; no attempt is kept of any step"
    )
    for bad in (
        {"step": "1", "index": 0},
        {"step": 1},
        {"step": 1, "index": -1},
        {"step": True, "index": 0},
    ):
        assert "must be" in tell(dash, "credit", **bad)["notice"]


class Past:
    """As much of a timeline as the dashboard knows."""

    def __init__(self, trainer):
        self.trainer, self.seen, self.steps = trainer, [], []

    def watch(self, record):
        self.seen.append(record and record.step)
        self.steps.append(len(self.trainer.history))

    def picture(self, step):
        if step not in self.steps:
            raise ValueError(f"no picture of step {step}")
        return {"tokens": [str(step)]}


def test_a_timeline_watches_and_is_asked(fake, monkeypatch, until):
    trainer = fake()
    past = Past(trainer)
    dash = Dashboard(trainer, 3, evaluate_every=0, timeline=past)
    assert dash.setup["rewind"] and dash.news(0)["past"] == []
    dash.result()
    assert past.seen == [None, 1, 2, 3] and dash.news(0)["past"] == [[0, 3, 1]]
    sent = []
    monkeypatch.setattr(dash, "send", sent.append)
    for step, key, value in (
        (2, "picture", {"tokens": ["2"]}),
        (9, "error", "ValueError: no picture of step 9"),
    ):
        tell_it = {"kind": "rewind", "step": step, "since": 0, "seen": 3}
        dash._on_message(dash, tell_it, [])
        until(lambda: dash._asked[0][1].done() if dash._asked else True)
        dash._on_message(dash, {"kind": "tick", "since": 3, "seen": 3}, [])
        answer = [m for m in sent if m["kind"] == "past"][-1]
        assert answer["step"] == step and answer[key] == value
    with pytest.raises(ValueError, match="of the same trainer"):
        Dashboard(fake(), 3, timeline=past)


def test_spans():
    for steps in (
        [],
        [0],
        [3, 4, 5],
        [0, 1, 2, 8, 16, 24, 25],
        [0, 5],
        list(range(0, 1000, 4)) + [999],
    ):
        found = spans(steps)
        assert [s for a, b, by in found for s in range(a, b + 1, by)] == steps and len(found) <= 4


@pytest.mark.parametrize("seconds", [0, 0.01, 1000, "1", None])
def test_the_pace_is_checked(fake, seconds):
    with pytest.raises((ValueError, TypeError), match="seconds_between_news"):
        Dashboard(fake(), seconds_between_news=seconds)


def test_a_saved_notebook_shows_something(dashboard):
    dash = dashboard(3)
    assert repr(dash) == "Dashboard(ready · 0 of 3 steps · 0 s)"
    dash.result()
    assert repr(dash).startswith("Dashboard(finished · 3 of 3 steps · mean reward")
    bundle = dash._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"].startswith("Dashboard(finished")
    assert "finished" in repr(dash.summary()) and "<svg" in dash.summary()._repr_html_()


@pytest.mark.parametrize("count", [0, 1, 2, 9, 61, 1234])
def test_the_curve_is_well_formed(fake, count):
    trainer = fake(seconds=0, metrics={"active_fraction": 0.5, "teacher_accuracy": 0.9})
    for _ in range(count):
        trainer.step()
    trainer.history.changes = {2: {"learning_rate": 1e-3}, 99999: {"temperature": 1.0}}
    picture = curve(trainer.history, title="a < b & c")._repr_html_()
    figure = xml.dom.minidom.parseString(picture).documentElement
    assert (
        len(figure.getElementsByTagName("polyline")) == (2 if count else 1)
        and len(picture) < 40_000
    )  # however long the run
    assert ("a: step 2, learning rate 0.001" in picture) == (
        count >= 2
    ) and "temperature" not in picture
    assert "3 steps" in repr(curve(History(trainer.history.records[:3]))) or count < 3


def test_clean():
    assert (
        clean("abc", 2) == "ab … (+1 characters)"
        and clean("\udc80") == r"\udc80"
        and clean(3) == "3"
    )


def test_thinning_keeps_ends_and_spikes():
    x, y = list(range(5000)), [0.5] * 5000
    y[1234], y[4999] = 9.0, 0.1
    a, b = thin(x, y)
    assert len(a) <= 520 and a[-1] == 4999 and b[-1] == 0.1 and b[a.index(1234)] == 9.0
    assert thin(x[:400], y[:400]) == (x[:400], y[:400])


def test_a_disk_that_does_not_take_the_run_is_told(fake, tmp_path):
    dash = Dashboard(fake(), 3, evaluate_every=0, folder=tmp_path / "run")
    assert dash.news(0)["warnings"] == []
    dash.run.trainer.autosaves.trouble = "No space left on device"
    assert dash.news(0)["warnings"] == [
        "The run could not be saved, and goes on: No space left on device"
    ]
