"""Knobs, buttons, saving, tokens on demand and the timeline."""

from __future__ import annotations

import pytest

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.live.diagnostics import worries
from sdpo_lab.views import Dashboard
from sdpo_lab.views.dashboard import spans
from tests.views.common import answer, tell


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


def test_a_disk_that_does_not_take_the_run_is_told(fake, tmp_path):
    dash = Dashboard(fake(), 3, evaluate_every=0, folder=tmp_path / "run")
    assert dash.news(0)["warnings"] == []
    dash.run.trainer.autosaves.trouble = "No space left on device"
    assert dash.news(0)["warnings"] == [
        "The run could not be saved, and goes on: No space left on device"
    ]
