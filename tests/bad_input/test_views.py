"""Views, made without a page."""

from __future__ import annotations

import inspect

import pytest

import sdpo_lab as lab
from sdpo_lab.core.checks import short_repr
from sdpo_lab.core.rollouts import Rollout
from tests.bad_input.rows import ANY_TEACHER, QUESTION, Row, Sums, given, small
from tests.bad_input.values import (
    CHOICE,
    CONFIG,
    MODEL,
    PROBLEM,
    TASK,
    TOKENIZER,
    floats,
    ints,
    optional,
    refused,
)
from tests.shared.fake_trainer import FakeTrainer


def views(x) -> dict[str, Row]:
    attempts = [
        Rollout(QUESTION, i, "ab", [5, 6], reward=float(i), feedback="" if i else "no")
        for i in range(2)
    ]
    scored = lab.credit(x.model, x.tokenizer, QUESTION, "ab", feedback="no")
    fake = FakeTrainer()
    number_or_history = [None, 3, "x", [], {}]
    return {
        "token_view": Row(
            given(lab.views.token_view, credits=scored),
            dict(
                credits=[None, 3, "x", [], [3], {}],
                titles=[["a", "b"], []],
                color_by=CHOICE,
                scale=optional(floats(0.01, 100)),
                k=ints(1, 64),
            ),
            names={"credits": "credits|attempt", "titles": "titles"},
        ),
        "group_view": Row(
            given(lab.views.group_view, model=x.model, tokenizer=x.tokenizer, rollouts=attempts),
            dict(
                model=MODEL,
                tokenizer=TOKENIZER,
                rollouts=[None, 3, [], ["a"]],
                config=CONFIG,
                k=ints(1, 64),
            ),
            {"task": "only asked for attempts without a reward", "teacher": ANY_TEACHER},
        ),
        "compare": Row(
            given(lab.views.compare, runs={"a": fake.history}), dict(runs=number_or_history)
        ),
        "Dashboard": Row(
            given(lab.views.Dashboard, trainer=fake),
            dict(
                trainer=[None, "run", 3, {}],
                steps=ints(1, 10**9),
                seconds_between_news=floats(0.1, 60),
                evaluate_every=ints(0, 10**9),
                evaluate_n=ints(1, 10_000),
            ),
        ),
        "LiveRun": Row(
            given(lab.views.LiveRun, trainer=fake, steps=2),
            dict(
                trainer=[None, "run", 3, {}],
                steps=ints(1, 10**9),
                evaluate_every=ints(0, 10**9),
                evaluate_n=ints(1, 10_000),
                watchers=[3, [3], "x"],
            ),
        ),
        "Playground": Row(
            given(
                lab.views.Playground,
                model=x.model,
                tokenizer=x.tokenizer,
                task=Sums(),
                config=small(),
            ),
            dict(
                model=MODEL,
                tokenizer=TOKENIZER,
                task=TASK,
                problem=optional(PROBLEM),
                config=CONFIG,
                seed=ints(0),
                problems=["6", None, True, 0, 51, [], ["q"], 1.5],
            ),
        ),
        "Blame": Row(
            given(lab.views.Blame, tokens=["a", "b"]),
            dict(
                tokens=[None, 3, "ab", [], [3], ["a"] * 10_001],
                blamed=[[2], [-1], [1.0], ["0"], [True], 3],
            ),
        ),
        "Rewind": Row(given(lab.views.Rewind, timeline=None), dict(timeline=[None, 3, "run", {}])),
        "smooth": Row(given(lab.views.smooth, values=[1.0, 2.0], window=2), dict(window=ints(1))),
        "curve": Row(given(lab.views.curve, history=fake.history), dict(history=number_or_history)),
    }


#: Plain data for a picture, or what a function of `views` returns.
DRAWN = {"Bars", "Chart", "Line", "TokenView", "GroupView"}
VIEWS = {
    "token_view": ["credits", "titles", "color_by", "scale", "k"],
    "group_view": ["model", "tokenizer", "rollouts", "config", "k"],
    "compare": ["runs"],
    "Dashboard": ["trainer", "steps", "seconds_between_news", "evaluate_every", "evaluate_n"],
    "LiveRun": ["trainer", "steps", "evaluate_every", "evaluate_n", "watchers"],
    "Playground": ["model", "tokenizer", "task", "problem", "config", "seed", "problems"],
    "Blame": ["tokens", "blamed"],
    "Rewind": ["timeline"],
    "smooth": ["window"],
    "curve": ["history"],
}


@pytest.fixture(scope="module")
def drawn(one):
    return views(one)


def test_every_view_has_a_row(drawn):
    missing = set(lab.views.__all__) - DRAWN - set(drawn)
    assert not missing, f"views() has no row for {', '.join(sorted(missing))}"
    assert {name: list(row.bad) for name, row in drawn.items()} == VIEWS


@pytest.mark.parametrize(
    "name, parameter",
    [(name, parameter) for name, parameters in VIEWS.items() for parameter in parameters],
)
def test_views(name, parameter, drawn, one):
    function, arguments = drawn[name].good(one)
    parameters = inspect.signature(function).parameters
    assert parameter in parameters
    wrong = []
    for bad in drawn[name].bad[parameter]:
        try:
            refused(lambda: function(**{**arguments, parameter: bad}), parameter, bad)
        except BaseException as error:
            wrong.append(f"{parameter}={short_repr(bad)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
