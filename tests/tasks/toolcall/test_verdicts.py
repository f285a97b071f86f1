"""Verdicts, and messages at every setting of the dial."""

from __future__ import annotations

import pytest

from sdpo_lab.tasks import Verdict
from sdpo_lab.tasks.toolcall import FEEDBACK, ToolCall
from sdpo_lab.tasks.toolcall.judge import find_errors
from sdpo_lab.tasks.toolcall.requests import write_call
from tests.tasks.toolcall.common import (
    ASKED_ORDER,
    MISSING,
    NOT_A_CALL,
    POSITIONAL,
    UNEXPECTED,
    VALUE,
    fixed,
)

MESSAGES = [  # attempt, then what settings 1, 2 and 3 of the dial say
    (
        "weather(city='Oslo', when='May 5')",
        UNEXPECTED,
        UNEXPECTED + " (accepted: town, when)",
        UNEXPECTED + " ('city' should be 'town')",
    ),
    (
        "weather(town='Oslo')",
        MISSING,
        MISSING + " (accepted: town, when)",
        MISSING + " (expected: 'when')",
    ),
    ("weather('Oslo', 'May 5')", POSITIONAL, POSITIONAL + " (accepted: town, when)", POSITIONAL),
    ("weather(town='Rome', when='May 5')", VALUE, VALUE, VALUE + " (expected: 'Oslo')"),
    ("order(town='Oslo', when='May 5')", *["NameError: 'order' is not the tool asked for"] * 3),
    ("I do not know.", *[NOT_A_CALL] * 3),
    ("", *[NOT_A_CALL] * 3),
    (
        "weather(town='Oslo', when='May 5'); weather()",
        *["ValueError: 2 instead of 1 calls, one a line"] * 3,
    ),
]


@pytest.mark.parametrize(
    "attempt, one, two, three", MESSAGES, ids=lambda v: v[:24] if isinstance(v, str) else None
)
def test_messages_at_every_setting_of_the_dial(attempt, one, two, three):
    for level, message in enumerate(("", one, two, three)):
        task, problem = fixed(level)
        assert task.judge(problem, attempt) == Verdict(0.0, message)


def test_the_default_lists_the_accepted_names_sorted_and_pairs_none():
    assert ToolCall().dials["feedback"] == 2 and list(FEEDBACK) == [0, 1, 2, 3]
    task = ToolCall(seed=1)
    for problem in task.problems(50):
        (call,) = problem.data["calls"]
        names = sorted(task.convention[call["tool"]].values())
        said = task.judge(
            problem,
            write_call(
                call["tool"],
                {role: f"wrong{i}" for i, role in enumerate(call["values"])},
                call["values"],
            ),
        )
        assert (
            said.feedback.endswith(f"(accepted: {', '.join(names)})")
            and "should be" not in said.feedback
        )


def test_the_wrong_name_is_paired_by_value_then_by_meaning():
    task, problem = fixed(3)
    assert task.judge(problem, "weather(day='Oslo', when='May 5')").feedback.endswith(
        "('day' should be 'town')"
    ), "Oslo is the city"
    assert task.judge(problem, "weather(day='Rome', place='May 5')").feedback.endswith(
        "('day' should be 'when')"
    ), "a day is a date"
    assert task.judge(problem, "weather(foo=1, bar=2)").feedback.endswith(
        "('foo' should be 'town')"
    ), "else the first one missing"


def test_among_several_calls_the_line_is_named_and_the_first_error_said():
    task, problem = fixed(2, calls=2)
    right = task.solution(problem)
    assert task.judge(problem, right).reward == 1
    said = task.judge(problem, right.replace("pieces=", "count=")).feedback
    assert (
        said == "line 2: TypeError: order() got an unexpected keyword argument 'count' (accepted: "
        "goods, pieces)"
    )
    assert task.judge(problem, "weather(a=1)\norder(b=2)").feedback.startswith("line 1: ")
    assert (
        task.judge(problem, "\n".join(reversed(right.splitlines()))).feedback
        == "line 1: NameError: 'order' is not the tool asked for"
    )
    assert (
        task.judge(problem, right.splitlines()[0]).feedback
        == "ValueError: 1 instead of 2 calls, one a line"
    )


@pytest.mark.parametrize(
    "attempt, fraction",
    [
        ("weather(town='Oslo', when='May 5')", 1.0),
        ("weather(city='Oslo', when='May 5')", 0.5),
        ("weather(when='May 5')", 0.5),
        ("weather(town='Oslo', when='May 5', extra=1)", 2 / 3),
        ("weather(city='Oslo', day='May 5')", 0.0),
        ("weather('Oslo', 'May 5')", 0.0),
        ("weather('Oslo', when='May 5')", 0.0),
        ("order(town='Oslo', when='May 5')", 0.0),
        ("no call", 0.0),
    ],
)
def test_reward_as_a_fraction(attempt, fraction):
    task, problem = fixed(reward="fraction")
    assert task.judge(problem, attempt).reward == pytest.approx(fraction)
    task, problem = fixed(reward="exact")
    assert task.judge(problem, attempt).reward == float(fraction == 1)


def test_fraction_over_two_calls():
    task, problem = fixed(reward="fraction", calls=2)
    assert task.judge(
        problem, task.solution(problem).replace("goods", "item")
    ).reward == pytest.approx(3 / 4)


def test_wrong_types_are_wrong_values():
    task, _ = fixed()
    for attempt in (
        "order(goods='lamps', pieces='7')",
        "order(goods='lamps', pieces=7.0)",
        "order(goods='lamps', pieces=True)",
        "order(goods='lamps', pieces=3+4)",
        "order(goods=lamps, pieces=7)",
        "order(goods=b'lamps', pieces=7)",
        "order(goods=f'lamps', pieces=7)",
        "order(goods=['lamps'], pieces=7)",
        "order(goods='lamps', pieces=None)",
    ):
        errors, _ = find_errors([ASKED_ORDER], task.convention, attempt)
        assert [e.kind for e in errors] == ["value"], attempt
