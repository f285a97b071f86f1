"""toolcall: problems, solutions, dials, messages, and attempts that mean harm."""

from __future__ import annotations

import itertools
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab.core.task import Problem, as_verdict, judge_all
from sdpo_lab.tasks import Task, Verdict, list_tasks, load_task
from sdpo_lab.tasks.toolcall import FEEDBACK, ToolCall
from sdpo_lab.tasks.toolcall.judge import find_errors, parse_calls
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import (
    BY_NAME,
    HELD_OUT_TOOLS,
    NOVELTY,
    PRIOR,
    TOOLS,
    combinations,
    draw_convention,
    is_held_out,
    names_of,
)


def texts(problems: list[Problem]) -> list[str]:
    return [p.messages[0]["content"] for p in problems]


# -- problems ------------------------------------------------------------------------------------------------------------------


def test_same_arguments_same_problems():
    a, b = (ToolCall(seed=3).problems(50, "train", seed=7) for _ in range(2))
    assert a == b
    assert ToolCall(seed=3).problems(50, "train", seed=8) != a
    assert ToolCall(seed=3).problems(50, "test", seed=7) != a
    assert ToolCall(seed=3).problems(20, "train", seed=7) == a[:20], (
        "asking for more keeps the first ones"
    )


def test_problems_do_not_know_the_convention():
    """Two conventions ask the same questions, so the question cannot tell which one it is."""
    assert ToolCall(seed=0).problems(50) == ToolCall(
        seed=1, base_accuracy=0.5, feedback=0
    ).problems(50)


@pytest.mark.parametrize("calls", [1, 3])
def test_splits_share_no_problem_whatever_the_seeds(calls):
    task = ToolCall(calls=calls)
    split = {
        name: set(itertools.chain(*(texts(task.problems(100, name, seed)) for seed in range(30))))
        for name in ("train", "test")
    }
    assert not split["train"] & split["test"]
    assert min(map(len, split.values())) > 2500


def test_ids_are_unique_and_stable():
    problems = ToolCall().problems(2000, "train", seed=0)
    assert len({p.id for p in problems}) == len(set(texts(problems))) == 2000
    assert problems[0].id == ToolCall(seed=9, calls=1).problems(1, "train", seed=0)[0].id
    # written down: the sampling noise of recorded runs hangs on ids, so a change here makes records unrepeatable
    assert [p.id for p in ToolCall().problems(3, "train", seed=0)] == WRITTEN_IDS


WRITTEN_IDS = ["toolcall-9c098aae49be", "toolcall-ec9d5c39194e", "toolcall-366dfe16add3"]


def test_a_problem_is_a_chat_that_names_its_tool_and_values():
    for problem in ToolCall().problems(200):
        (message,) = problem.messages
        (call,) = problem.data["calls"]
        assert message["role"] == "user"
        assert call["tool"] in message["content"]
        for value in call["values"].values():
            assert str(value) in message["content"]
        assert len(set(map(str, call["values"].values()))) == len(call["values"]), (
            "no value twice: roles can be told apart"
        )
        assert {type(v) for v in call["values"].values()} <= {str, int}


def test_requests_are_varied():
    task = ToolCall()
    problems = task.problems(1500)
    frames = set()
    for p in problems:
        text = p.messages[0]["content"]
        for role, value in p.data["calls"][0]["values"].items():
            text = text.replace(str(value), "{" + role + "}")
        frames.add(text)
    assert len(frames) > 300
    assert {c["tool"] for p in problems for c in p.data["calls"]} == {t.name for t in TOOLS}


@pytest.mark.parametrize("calls", range(1, 9))
@pytest.mark.parametrize("novelty", NOVELTY)
def test_the_solution_is_right(novelty, calls):
    for seed in range(3):
        task = ToolCall(seed, novelty=novelty, calls=calls)
        for split in ("train", "test"):
            for problem in task.problems(8, split, seed):
                assert len(problem.data["calls"]) == calls
                assert task.judge(problem, task.solution(problem)) == Verdict(1.0, "")
                assert task.judge(problem, "\n" + task.solution(problem) + "  \n") == Verdict(
                    1.0, ""
                ), "space around does not matter"


def test_order_of_keywords_and_quotes_do_not_matter():
    task = ToolCall()
    (problem,) = task.problems(1)
    (call,) = problem.data["calls"]
    names = task.convention[call["tool"]]
    pairs = [
        f"{names[role]} = {value!r}".replace("'", '"') for role, value in call["values"].items()
    ]
    assert task.judge(problem, f"{call['tool']}(\n  {', '.join(reversed(pairs))},\n)").reward == 1


# -- conventions ---------------------------------------------------------------------------------------------------------------


def test_prior_is_a_distribution():
    assert math.isclose(sum(PRIOR), 1)
    for tool in TOOLS + HELD_OUT_TOOLS:
        every = combinations(tool)
        assert math.isclose(sum(p for p, _ in every), 1)
        assert not any(is_held_out(ranks) for _, ranks in every)
        names = [n for a in tool.arguments for n in (*a.names, *filter(None, [a.held_out]))]
        assert len(names) == len(set(names)), "no name for two arguments of one tool"


def prior_accuracy(task: ToolCall) -> float:
    """How often a learner who knows the prior alone writes one call right, over tools, exactly."""
    right = []
    for tool in TOOLS:
        names = task.convention[tool.name]
        (p,) = [p for p, ranks in combinations(tool) if names_of(tool, ranks) == names]
        right.append(p)
    return sum(right) / len(right)


DIAL = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.35, 0.5)


@pytest.mark.parametrize("base", DIAL)
def test_base_accuracy_is_what_the_dial_says(base):
    """Few combinations exist, so one convention may miss by a step; the mean over seeds lies within a factor 1.6."""
    accuracies = [prior_accuracy(ToolCall(seed, base_accuracy=base)) for seed in range(12)]
    mean = sum(accuracies) / len(accuracies)
    assert base / 1.6 <= mean <= base * 1.6, accuracies
    assert max(accuracies) / min(accuracies) < 2.5


def test_base_accuracy_is_monotone():
    means = [
        sum(prior_accuracy(ToolCall(seed, base_accuracy=base)) for seed in range(12))
        for base in DIAL
    ]
    assert means == sorted(means)


def test_conventions_differ_between_seeds_and_repeat():
    drawn = [draw_convention(seed) for seed in range(20)]
    assert len({str(c) for c in drawn}) == 20
    assert drawn == [draw_convention(seed) for seed in range(20)]


@pytest.mark.parametrize("seed", range(5))
def test_levels_of_novelty_are_what_they_say(seed):
    ranks = {name: {} for name in NOVELTY}
    for novelty in NOVELTY:
        for tool, names in draw_convention(seed, novelty=novelty).items():
            arguments = BY_NAME[tool].arguments
            ranks[novelty][tool] = [
                a.names.index(names[a.role]) if names[a.role] in a.names else None
                for a in arguments
            ]
    assert set(ranks["tool"]) == {t.name for t in HELD_OUT_TOOLS}
    assert all(set(ranks[n]) == {t.name for t in TOOLS} for n in NOVELTY if n != "tool")
    assert all(None not in r and not is_held_out(r) for r in ranks["seen"].values())
    assert all(is_held_out(r) for r in ranks["combination"].values())
    assert all(
        (r[i] is None) == bool(a.held_out)
        for t, r in ranks["pair"].items()
        for i, a in enumerate(BY_NAME[t].arguments)
    )
    assert all(r == [None] * len(r) for r in ranks["nonsense"].values())
    everything = {
        n for t in TOOLS + HELD_OUT_TOOLS for a in t.arguments for n in (*a.names, a.held_out)
    }
    nonsense = [
        n for names in draw_convention(seed, novelty="nonsense").values() for n in names.values()
    ]
    assert not everything & set(nonsense) and all(n.isidentifier() for n in nonsense)


# -- verdicts and messages -----------------------------------------------------------------------------------------------------

WEATHER = {"city": "town", "date": "when"}
ASKED = {"tool": "weather", "values": {"city": "Oslo", "date": "May 5"}}
ORDER = {"item": "goods", "count": "pieces"}
ASKED_ORDER = {"tool": "order", "values": {"item": "lamps", "count": 7}}


def fixed(level: int = 2, reward: str = "exact", calls: int = 1) -> tuple[ToolCall, Problem]:
    task = ToolCall(feedback=level, reward=reward, calls=calls)
    task.convention |= {"weather": WEATHER, "order": ORDER}
    asked = [ASKED, ASKED_ORDER][:calls]
    return task, Problem("fixed", [{"role": "user", "content": "?"}], {"calls": asked})


UNEXPECTED = "TypeError: weather() got an unexpected keyword argument 'city'"
MISSING = "TypeError: weather() missing a required keyword argument"
POSITIONAL = "TypeError: weather() takes 0 positional arguments but 2 was given"
VALUE = "ValueError: weather() got a value for 'town' that was not asked for"
NOT_A_CALL = "SyntaxError: this is not a call of a tool"
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
        said
        == "line 2: TypeError: order() got an unexpected keyword argument 'count' (accepted: goods, pieces)"
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


# -- attempts that mean harm ---------------------------------------------------------------------------------------------------

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
    """The parser of some Python versions is exponential in nested brackets; the limit on depth keeps that out."""
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


# -- dials and names -----------------------------------------------------------------------------------------------------------

BAD = [
    ({"base_accuracy": 0.009}, ValueError, "base_accuracy must be from 0.01 to 0.5"),
    ({"base_accuracy": 0.51}, ValueError, "base_accuracy must be from 0.01 to 0.5"),
    ({"base_accuracy": math.nan}, ValueError, "base_accuracy"),
    ({"base_accuracy": "0.1"}, TypeError, "base_accuracy must be a number"),
    ({"base_accuracy": True}, TypeError, "base_accuracy"),
    ({"calls": 0}, ValueError, "calls must be from 1 to 8"),
    ({"calls": 9}, ValueError, "calls must be from 1 to 8"),
    ({"calls": 1.5}, TypeError, "calls must be a whole number"),
    ({"feedback": 4}, ValueError, "feedback must be one of 0, 1, 2, 3"),
    ({"feedback": True}, ValueError, "feedback must be one of 0, 1, 2, 3"),
    ({"feedback": None}, ValueError, "feedback must be one of 0, 1, 2, 3"),
    (
        {"reward": "fractional"},
        ValueError,
        "reward must be one of 'exact', 'fraction'.*Did you mean 'fraction'",
    ),
    (
        {"novelty": "nonsens"},
        ValueError,
        "novelty must be one of 'seen', .*'nonsense'.*Did you mean 'nonsense'",
    ),
    ({"seed": -1}, ValueError, "seed must be from 0"),
    ({"seed": 1.0}, TypeError, "seed must be a whole number"),
    ({"seed": None}, TypeError, "seed must be a whole number"),
    ({"feedbak": 2}, ValueError, "base_accuracy, calls, feedback.*Did you mean 'feedback'"),
    ({"rarity": 2}, ValueError, "base_accuracy, calls, feedback, reward, novelty"),
]


@pytest.mark.parametrize("dials, kind, message", BAD, ids=lambda v: str(v)[:40])
def test_a_bad_dial_is_refused_with_what_there_is(dials, kind, message):
    with pytest.raises(kind, match=message):
        load_task("toolcall", **dials)


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'toolcall'.*Did you mean 'toolcall'"):
        load_task("toolcal")
    with pytest.raises((TypeError, ValueError), match="task must be"):
        load_task(None)
    assert list(list_tasks())[:3] == ["toolcall", "tinycode", "followup"] and all(
        list_tasks().values()
    )


def test_problems_refuses_what_it_cannot_give():
    task = ToolCall()
    for n, kind in ((0, ValueError), (-1, ValueError), (1.0, TypeError), ("8", TypeError)):
        with pytest.raises(kind, match="n must be"):
            task.problems(n)
    with pytest.raises(
        ValueError, match="split must be one of 'train', 'test'.*Did you mean 'train'"
    ):
        task.problems(1, split="trian")


@pytest.mark.timeout(60)
def test_more_problems_than_there_are_is_an_error_not_an_endless_loop():
    """The held-out tool alone has about 57,000 different requests."""
    with pytest.raises(ValueError, match="only about .* different test problems"):
        ToolCall(novelty="tool").problems(100_000, "test")


def test_dials_stand_in_the_record_and_in_the_repr():
    task = load_task(
        "toolcall",
        seed=4,
        base_accuracy=0.1,
        calls=2,
        feedback=3,
        reward="fraction",
        novelty="pair",
    )
    assert task.dials == dict(
        seed=4, base_accuracy=0.1, calls=2, feedback=3, reward="fraction", novelty="pair"
    )
    assert eval(repr(task), {"ToolCall": ToolCall}).convention == task.convention
    assert isinstance(task, Task)


# -- the protocol --------------------------------------------------------------------------------------------------------------


def test_a_judge_may_return_a_pair():
    assert as_verdict((1, "")) == Verdict(1.0, "") and as_verdict(Verdict(0.5, "x")) == Verdict(
        0.5, "x"
    )
    for bad in (None, 1.0, (1,), (1, "", 2), [1, ""], "right"):
        with pytest.raises(TypeError, match="Verdict or a"):
            as_verdict(bad)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_is_finite(reward):
    with pytest.raises(ValueError, match="finite"):
        Verdict(reward)


@pytest.mark.parametrize(
    "arguments", [(True, ""), ("1", ""), (None, ""), (1.0, None), (1.0, b"no")]
)
def test_a_verdict_is_a_number_and_a_text(arguments):
    with pytest.raises(TypeError):
        Verdict(*arguments)


def test_judge_many_must_answer_each():
    class Many:
        def judge_many(self, problems, completions):
            return [(1.0, "")] * (len(completions) - 1)

    with pytest.raises(ValueError, match="1 verdicts for 2"):
        judge_all(Many(), [None, None], ["a", "b"])
