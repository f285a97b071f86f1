"""Problems repeat, differ and are right; dials and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest

from sdpo_lab.core.task import Problem, as_verdict, judge_all
from sdpo_lab.tasks import Task, Verdict, list_tasks, load_task
from sdpo_lab.tasks.toolcall import ToolCall
from sdpo_lab.tasks.toolcall.world import (
    NOVELTY,
    TOOLS,
)


def texts(problems: list[Problem]) -> list[str]:
    return [p.messages[0]["content"] for p in problems]


# -- problems


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
    # written down: the sampling noise of recorded runs hangs on ids, so a change here makes records
    # unrepeatable
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


# -- dials and names

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


# -- the protocol


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
