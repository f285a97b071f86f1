"""Attempts that mean harm: each has a verdict, and nothing is run."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab.tasks import Verdict
from sdpo_lab.tasks.toolcall.judge import parse_calls
from tests.tasks.toolcall.common import NOT_A_CALL, fixed

RIGHT = "weather(town='Oslo', when='May 5')"
NO_CALLS = [
    "",
    " \n\t ",
    "\0",
    RIGHT + "\0",
    "weather(",
    "weather(town='Oslo",
    RIGHT + " trailing words",
    "```python\n" + RIGHT + "\n```",
    "x = " + RIGHT,
    "lambda: " + RIGHT,
    "[" + RIGHT + "]",
    "return " + RIGHT,
    "import os",
    "print",
    "(weather)",
    "weather.now(town='Oslo')",
    "(lambda **k: k)(a=1)",
    "weather(**{'town': 'Oslo', 'when': 'May 5'})",
    "weather(town='Oslo', **x)",
    "weather(town='Oslo', town='Oslo', when='May 5')",
    "weather(town='Rome', town='Oslo', when='May 5')",
    "weather(1=2)",
    "await weather()",
    "weather()()",
    "f'{weather()}'",
    "(" * 500,
    "(" * 19 + ")" * 19,
    "[" * 2000 + "]" * 2000,
    "{" * 900,
    "weather(" * 100 + ")" * 100,
    "-" * 3990 + "1",
    "not " * 990 + "1",
    "1+" * 1990 + "1",
    "a." * 1990 + "b",
    "x" * 10_000_000,
    "é" * 5000,
    "\ud800",
    "weather(town='\ud800')",
    "名前(" * 30,
    "\u202e" + RIGHT,
    "if 1:\n  " + RIGHT,
    "def f(): pass",
    "@weather()\ndef f(): pass",
    "match x:\n case _: weather()",
    "# " + RIGHT,
    "'''" + RIGHT,
    "\\" * 3000,
]
OTHER_ERRORS = [  # calls, but not the right one
    "__import__('os')",
    "eval('1')",
    'exec("import os; os._exit(1)")',
    "exit()",
    "weather(*a)",
    "weather(*['Oslo'], when='May 5')",
    "weather(town=__import__('os').system('true'), when='May 5')",
    "weather(town=lambda: 0, when='May 5')",
    "weather(town=f'{1/0}', when='May 5')",
    "weather(town=='Oslo')",
    "weather(town=(yield), when=1)",
    "weather(town=(x:='Oslo'), when='May 5')",
    "weather(town=9**9**9, when='May 5')",
    "weather(town=" + "9" * 3000 + ", when='May 5')",
    "weather(" + ", ".join(f"a{i}=1" for i in range(500)) + ")",
    "weather(" + "x" * 3000 + "=1)",
    "weather(town='" + "y" * 3000 + "', when='May 5')",
    "ｗeather(a=1)",
    "weather(<b>=1)".replace("<b>", "b"),
    "weather(town=...)",
]


@pytest.mark.parametrize("attempt", NO_CALLS, ids=lambda a: ascii(a[:24]) + f"-{len(a)}")
def test_what_is_no_call_is_a_verdict(attempt):
    task, problem = fixed()
    begun = time.perf_counter()
    assert task.judge(problem, attempt) == Verdict(0.0, NOT_A_CALL)
    assert time.perf_counter() - begun < 0.5


@pytest.mark.parametrize("attempt", OTHER_ERRORS, ids=lambda a: ascii(a[:24]) + f"-{len(a)}")
@pytest.mark.parametrize("reward", ["exact", "fraction"])
def test_what_is_another_call_is_a_verdict_and_never_run(attempt, reward):
    task, problem = fixed(3, reward)
    begun = time.perf_counter()
    verdict = task.judge(problem, attempt)
    assert time.perf_counter() - begun < 0.5
    assert verdict.reward < 1 and verdict.feedback and len(verdict.feedback) < 300, (
        "a long name is cut, not sent back whole"
    )


BRACKETS = [
    "(",
    "[",
    "{",
    "f(",
    "f(a=",
    "{a:",
    "{**{",
    "[x for x in (",
    "lambda x=(",
    "f'{",
    "(a:=",
    "print (",
    "with (",
    "x if (",
    "\\\n",
]


@pytest.mark.parametrize("piece", BRACKETS)
def test_no_text_is_slow_to_parse(piece):
    """The parser of some Python versions is exponential in nested brackets; the limit on depth
    keeps that out."""
    begun = time.perf_counter()
    for n in (10, 20, 21, 4000 // len(piece)):
        for end in ("", "1", "a b", "= 1", ")" * n, "]" * n):
            assert parse_calls((piece * n + end)[:4100]) is None or piece in (
                "f(",
                "f(a=",
                "print (",
                "\\\n",
            )
    assert time.perf_counter() - begun < 3


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_a_verdict(text):
    task, problem = fixed(2, "fraction")
    verdict = task.judge(problem, text)
    assert 0 <= verdict.reward < 1 and verdict.feedback


PIECES = st.lists(
    st.sampled_from(
        [
            "weather",
            "(",
            ")",
            "town",
            "when",
            "=",
            "'Oslo'",
            "'May 5'",
            ",",
            "\n",
            " ",
            "**",
            "*",
            "lambda",
            ":",
            "7",
            "order",
        ]
    ),
    max_size=20,
)


@settings(max_examples=500, deadline=None)
@given(PIECES)
def test_any_sentence_of_the_right_words_has_a_verdict(pieces):
    task, problem = fixed(3, "fraction")
    verdict = task.judge(problem, "".join(pieces))
    assert 0 <= verdict.reward <= 1
    assert (verdict.reward == 1) == (verdict.feedback == "")
