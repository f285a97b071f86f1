"""What the dashboard tells its page, and what it does when asked."""

from __future__ import annotations

import json
import math
import xml.dom.minidom

import pytest

from sdpo_lab.core.records import History
from sdpo_lab.views import Dashboard, curve
from sdpo_lab.views.curves import thin
from sdpo_lab.views.dashboard import MOST_ATTEMPTS, MOST_CHARACTERS, MOST_POINTS, clean
from tests.views.common import HOSTILE, tell


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
