"""What the views' methods and functions are given and cannot use: each refuses it in a sentence
with the name, the value and what is allowed."""

from __future__ import annotations

import math

import pytest

import sdpo_lab as lab
from sdpo_lab.analysis.pictures import picture
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.task import Problem
from sdpo_lab.live.measurements import credit_of
from sdpo_lab.tasks.adapters import task_from_function
from sdpo_lab.views import (
    Bars,
    Blame,
    Chart,
    Dashboard,
    Line,
    LiveRun,
    Playground,
    Rewind,
    compare,
    curve,
    smooth,
    token_view,
)
from tests.bad_input.values import CHOICE, FLAG, HUGE, INF, NAN, floats, ints, optional, refused

NO_TEXT = [None, 3, b"text", ["text"]]
NO_FOLDER = [3, b"x", "", ["x"]]


@pytest.fixture(scope="module")
def scored(tiny_original):
    return lab.credit(
        *tiny_original, Problem("p", [{"role": "user", "content": "q"}]), "ab", feedback="no"
    )


@pytest.mark.parametrize(
    "method, parameter, bad, arguments",
    [
        ("save", "folder", NO_FOLDER, {}),
        ("credit_of", "step", ints(1, 10**9), dict(index=0)),
        ("credit_of", "index", ints(0, 10**9), dict(step=1)),
        ("value", "field", [*CHOICE, "replace", "learnin_rate"], {}),
        ("records_since", "index", ints(0), {}),
        ("result", "every", floats(0.001, 3600), {}),
        ("result", "progress", FLAG, {}),
        ("result", "meanwhile", [3, "x", []], {}),
        ("call_between_steps", "work", [None, 3, "x"], {}),
        ("errand", "work", [None, 3, "x"], {}),
        ("wait", "timeout", optional(floats(0, 10**9)), {}),
    ],
)
def test_a_live_run(method, parameter, bad, arguments, fake):
    """Refused before anything is started or saved."""
    run = LiveRun(fake(), 2)
    for value in bad:
        refused(lambda: getattr(run, method)(**{**arguments, parameter: value}), parameter, value)
    assert run.state == "ready" and run.done == 0 and not run.trainer.saves and run._thread is None


def test_a_live_run_does_what_is_right(fake, tmp_path):
    run = LiveRun(fake(), 2, folder=str(tmp_path / "run"))
    assert (
        run.value("learning_rate") == run.trainer.config.learning_rate
        and run.errand(lambda: 3).result(5) == 3
        and run.wait(5)
        and run.wait(timeout=5.0)
    )
    assert (
        len(run.result(every=1, progress=False, meanwhile=None)) == 2
        and len(run.records_since(1)) == 1
        and run.save().result(5)
        and run.save(tmp_path / "b").result(5)
    )


@pytest.mark.parametrize("kind", [LiveRun, Dashboard])
def test_where_a_run_is_saved_and_who_watches(kind, fake):
    for bad in NO_FOLDER:
        refused(lambda: kind(fake(), 2, folder=bad), "folder", bad)
    if kind is Dashboard:
        for bad in (3, "x", [], fake()):
            refused(lambda: Dashboard(fake(), 2, timeline=bad), "timeline", bad)
    else:
        refused(lambda: LiveRun(fake(), 2, watchers=["a\x1b[31mb"]), "watchers", "a\x1b[31mb")


def test_what_is_scored_again(fake, scored):
    for name, bad in [
        (name, bad) for name in ("step", "index") for bad in ("1", None, True, 1.5, [])
    ]:
        refused(lambda: credit_of(fake(), **{"step": 1, "index": 0, name: bad}), name, bad)
    for bad in (None, 3, "x", {}):
        refused(lambda: picture(bad), "credit", bad)
    for bad in ints(0, 20):
        refused(lambda: picture(scored, bad), "top", bad)
    for bad in (None, 3, "run", {}):
        refused(lambda: Rewind(bad), "timeline", bad)


def test_pages(scored, tmp_path):
    view = token_view(scored)
    for bad in (None, 3, b"x", "", str(tmp_path), tmp_path):
        refused(lambda: view.save(bad), "path", bad)
    for bad in (3, {}, b"x", [3], [None], ["a", "b"], []):
        refused(lambda: token_view(scored, titles=bad), "titles", bad)
    assert view.save(str(tmp_path / "view.html")).is_file()
    group = lab.views.GroupView("q", [], [], 8)
    for bad in (None, 3, "", tmp_path):
        refused(lambda: group.save(bad), "path", bad)


def test_curves(fake):
    run = fake()
    run.step()
    for name, bad in [(name, bad) for name in ("title", "note") for bad in NO_TEXT]:
        refused(lambda: curve(run.history, **{name: bad}), name, bad)
    for name, bad in [(name, bad) for name in ("metric", "note") for bad in NO_TEXT] + [
        ("window", bad) for bad in ints(1, 10_000)
    ]:
        refused(lambda: compare({"a": run.history}, **{name: bad}), name, bad)
    for bad in (None, 3, "12", b"12"):
        refused(lambda: smooth(bad, 2), "values", bad)


def test_charts():
    line = Line("a", [0, 1], [0, 1])
    for name, bad in [
        (name, bad) for name in ("title", "x_title", "y_title", "note") for bad in NO_TEXT
    ]:
        refused(lambda: Chart(**{"title": "t", "lines": [line], name: bad}), name, bad)
    for bad in (None, 3, line, "x", ["x"], [[0, 1]]):
        refused(lambda: Chart("t", bad), "lines", bad)
    for bad in (
        3,
        "01",
        (1, 0),
        (0, INF),
        (NAN, 1),
        (0, 1, 2),
        (0, 1e308),
        (0, HUGE),
        ("0", "1"),
        (None, 1),
        (),
    ):
        refused(lambda: Chart("t", [line], y_range=bad), "y_range", bad)
    refused(lambda: Chart("t", [line], marks=["x"]), "marks", ["x"])
    for name, bad in [
        (name, bad) for name in ("title", "unit", "note", "colour") for bad in NO_TEXT
    ] + [("values", [1.0]), ("values", None)]:
        refused(lambda: Bars(**{"title": "t", "values": {"a": 1.0}, name: bad}), name, bad)
    refused(lambda: Bars("t", {"a": "1"}), "values", "1")


def test_blame():
    for bad in (None, 3, "0", [1.5], ["a\x1b[31mb"], [-1], [HUGE]):
        refused(lambda: Blame(["a", "b"], bad), "blamed", bad)
    refused(lambda: Blame(["a\x1b[31m", 3]), "tokens", ["a\x1b[31m", 3])


def test_a_playground(tiny_original):
    task = task_from_function(
        [{"prompt": f"Question {i}", "split": "train"} for i in range(2)], lambda row, c: 0.0
    )
    config = SDPOConfig.preset("laptop", max_completion_length=3)
    for bad in (3, b"x", ["x"]):
        refused(
            lambda: Playground(
                *tiny_original,
                task,
                problem=task.problems(1)[0],
                completion=bad,
                problems=1,
                config=config,
            ),
            "completion",
            bad,
        )
    pg = Playground(*tiny_original, task, problems=1, config=config)
    for bad in (None, 3, "x", []):
        refused(lambda: pg.score(bad), "asked", bad)
        refused(lambda: pg.write(bad), "asked", bad)
    for name, bad in [
        ("problem", 7),
        ("problem", "a\x1b[31mb"),
        ("attempt", HUGE),
        ("preset", "no such"),
        ("preset", ["x"]),
    ]:
        refused(lambda: pg.score({"problem": 0, "attempt": 0, name: bad}), name, bad)
    assert math.isfinite(pg.score({"problem": 0, "attempt": 0, "preset": "nothing"})["sum"])
