"""Tasks of one's own: from lists and functions, with TRL's reward functions."""

from __future__ import annotations

import warnings

import pytest
import torch

from sdpo_lab.core.task import Problem, Task, Verdict, draw_problems, judge_all
from sdpo_lab.tasks.adapters import JudgeError, checksum, task_from_function
from tests.shared.own_tasks import ROWS, exact


def test_a_list_of_dictionaries_arrives_at_the_judge_as_those_dictionaries():
    seen = []
    task = task_from_function(
        ROWS, lambda row, completion: seen.append(row) or exact(row, completion)
    )
    assert isinstance(task, Task) and task.name == "custom"
    problem = task.problems(1)[0]
    assert task.judge(problem, str(problem.data["answer"])) == Verdict(1.0)
    assert task.judge(problem, "x").feedback == f"expected {problem.data['answer']}"
    assert any(seen[0] is row for row in ROWS) and problem.data is seen[0]
    assert (
        problem.messages == [{"role": "user", "content": seen[0]["prompt"]}]
        and problem.id == "custom-" + checksum(problem.messages)[:12]
    )


def test_splits_by_checksum_share_nothing_and_draws_are_seeded():
    task = task_from_function(ROWS, exact)
    train, test = (
        {p.id for p in task.problems(n, split)}
        for n, split in ((len(task.pools["train"]), "train"), (len(task.pools["test"]), "test"))
    )
    assert not train & test and len(train | test) == 100 and 10 <= len(test) <= 32
    ids = [[p.id for p in draw_problems(task, 8, "train", seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    reordered = task_from_function(ROWS[::-1], exact)
    assert {p.id for p in reordered.pools["test"]} == test  # a problem's split is its own


def test_too_few_problems_is_an_error_that_says_how_many_there_are():
    task = task_from_function(ROWS[:10], exact)
    have = len(task.pools["train"])
    with pytest.raises(
        ValueError,
        match=rf"has {have} train problems \(and {10 - have} of the other split\), asked for "
        rf"30.*generation_batch_size",
    ):
        task.problems(30)
    with pytest.raises(ValueError, match=r"test problems.*evaluate\(n=\.\.\.\).*\"split\""):
        task.problems(11, "test")


def test_a_split_may_be_given():
    rows = [{"question": str(i), "split": "test" if i < 3 else "train", "id": i} for i in range(10)]
    task = task_from_function(rows, lambda row, c: 0.5)
    assert {p.id for p in task.problems(3, "test")} == {"0", "1", "2"} and len(
        task.problems(7)
    ) == 7
    assert task.judge(task.problems(1)[0], "") == Verdict(0.5)
    objects = [
        Problem(f"p{i}", [{"role": "user", "content": str(i)}], {"split": ("train", "test")[i % 2]})
        for i in range(4)
    ]
    assert {p.id for p in task_from_function(objects, exact).problems(2, "test")} == {"p1", "p3"}


def test_problem_objects_arrive_as_they_are_and_functions_are_asked():
    asked = []

    def problems(n, split, seed):
        asked.append((n, split, seed))
        return [
            Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": "hi"}]) for i in range(n)
        ]

    task = task_from_function(problems, lambda p, c: (float(p.id in c), p.id), name="mine")
    assert asked == []
    p = draw_problems(task, 3, "test", 7)[2]
    assert asked == [(3, "test", 7)] and task.judge(p, "test-7-2") == Verdict(1.0, "test-7-2")
    rows = task_from_function(
        lambda n, split, seed: [{"prompt": f"{split} {seed} {i}", "n": i} for i in range(n)],
        lambda row, c: row["n"],
    )
    elsewhere = Problem("an older one", [], {"n": 3})
    assert rows.judge(elsewhere, "") == Verdict(3.0)  # asked for a problem first, so that it knows


@pytest.mark.parametrize(
    "rows, error, words",
    [
        ([], ValueError, "empty"),
        ("abc", TypeError, "got str"),
        ([3], TypeError, "got int"),
        ([{"prompt": "x"}, Problem("a", [])], TypeError, "got Problem, dict"),
        (
            [{"text": "x"}],
            ValueError,
            "problem 0 has neither 'prompt', 'messages' nor 'question'; it has 'text'",
        ),
        ([{"prompt": 3}], TypeError, "must be a string or a list of messages"),
        ([{"prompt": [{"role": "user"}]}], TypeError, "both strings"),
        (
            [
                {
                    "messages": [
                        {"role": "user", "content": "2+2"},
                        {"role": "assistant", "content": "4"},
                    ]
                }
            ],
            ValueError,
            "ends with the role 'assistant'",
        ),
        (
            [{"prompt": "a", "id": "one"}, {"prompt": "b", "id": "one"}],
            ValueError,
            "problems 0 and 1 have the same id 'one'",
        ),
        (
            [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}],
            ValueError,
            "problems 0 and 2 have the same id 'custom-.*prompts are the same",
        ),
        ([{"prompt": "a", "split": "train"}, {"prompt": "b"}], ValueError, "all or none have one"),
        (
            [{"prompt": "a", "split": "val"}],
            ValueError,
            "must be one of 'train', 'test'; got 'val'",
        ),
        (
            [{"prompt": "a", "split": "train", "id": 1}, {"prompt": "a", "split": "test", "id": 2}],
            ValueError,
            "test problem '2' has the prompt of the train problem '1'",
        ),
        ([{"prompt": "a", "id": True}], TypeError, "id of problem 0"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(rows, error, words):
    with pytest.raises(error, match=words):
        task_from_function(rows, exact)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="either judge="):
        task_from_function(ROWS)
    with pytest.raises(ValueError, match="either judge="):
        task_from_function(ROWS, exact, reward_funcs=[len])
    with pytest.raises(ValueError, match="feedback goes with reward_funcs"):
        task_from_function(ROWS, exact, feedback=lambda p, c: "")
    with pytest.raises(TypeError, match="judge must be a function"):
        task_from_function(ROWS, "exact")
    with pytest.raises(ValueError, match="on_error must be one of"):
        task_from_function(ROWS, exact, on_error="ignore")
    with pytest.raises(ValueError, match="at least one"):
        task_from_function(ROWS, reward_funcs=[])
    with pytest.raises(ValueError, match="one number for each of the 1"):
        task_from_function(ROWS, reward_funcs=[lambda **k: []], reward_weights=[1, 2])
    with pytest.raises(TypeError, match="reward models are not supported"):
        task_from_function(ROWS, reward_funcs="some/model")


# TRL's reward functions
def test_a_reward_function_is_called_as_trl_calls_it(tiny):
    calls = []

    def reward(
        prompts,
        completions,
        completion_ids,
        solution,
        trainer_state,
        log_extra,
        log_metric,
        **columns,
    ):
        log_extra("seen", ["x"] * len(prompts))
        log_metric("m", 1.0)
        calls.append((prompts, completions, completion_ids, solution, trainer_state, columns))
        return [float(c[0]["content"] == s) for c, s in zip(completions, solution)]

    rows = [
        {"prompt": [{"role": "user", "content": f"q{i}"}], "solution": str(i), "split": "train"}
        for i in range(6)
    ]
    task = task_from_function(
        rows,
        reward_funcs=reward,
        feedback=lambda row, c: f"{row['solution']} not {c}",
        tokenizer=tiny[1],
    )
    problems = task.problems(6)
    found = judge_all(task, problems, [problems[0].data["solution"], *"abcde"])
    assert len(calls) == 1, "the whole batch at once"
    prompts, completions, ids, solution, state, columns = calls[0]
    assert (
        prompts == [p.messages for p in problems]
        and completions[1] == [{"role": "assistant", "content": "a"}]
        and state is None
    )
    assert solution == [p.data["solution"] for p in problems] and columns == {
        "split": ["train"] * 6
    }
    assert [tiny[1].decode(i) for i in ids[1:]] == list("abcde")
    assert [v.reward for v in found] == [1, 0, 0, 0, 0, 0] and found[
        1
    ].feedback == f"{solution[1]} not a"


def test_rewards_are_weighed_added_and_none_does_not_count():
    def length(completions, **_):
        return [len(c[0]["content"]) for c in completions]

    def sometimes(completions, **_):
        return [None if "?" in c[0]["content"] else 1.0 for c in completions]

    task = task_from_function(
        ROWS,
        reward_funcs=[length, sometimes],
        reward_weights=[0.1, 2],
        feedback=lambda row, c: "said",
    )
    assert [v.reward for v in judge_all(task, task.problems(2), ["ab", "ab?"])] == pytest.approx(
        [2.2, 0.3]
    )
    alone = task_from_function(ROWS, reward_funcs=sometimes, feedback=lambda row, c: "said")
    with pytest.warns(
        UserWarning, match="every reward function answered None for problem 'custom-"
    ):
        found = judge_all(alone, alone.problems(3), ["a", "?", "?"])
    assert (
        found == [Verdict(1.0, "said"), Verdict(0.0), Verdict(0.0)] and alone.scorer.unscorable == 2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        judge_all(alone, alone.problems(3), ["?"] * 3)


def test_the_sum_is_trl_s(tiny):
    """The same functions, completions and weights through TRL's own code that weighs and adds."""
    from trl.rewards import (
        get_repetition_penalty_reward,
        get_soft_overlong_punishment,
        think_format_reward,
    )

    tokenizer, texts = tiny[1], ["<think>a</think>b", "no thought", "ho ho ho ho ho ho ho ho ho ho"]
    functions = [
        think_format_reward,
        get_soft_overlong_punishment(max_completion_len=12, soft_punish_cache=6),
        get_repetition_penalty_reward(2),
    ]
    task = task_from_function(
        ROWS, reward_funcs=functions, reward_weights=[1.0, 0.5, 0.25], tokenizer=tokenizer
    )
    found = [v.reward for v in judge_all(task, task.problems(3), texts)]
    chats, ids = (
        [[{"role": "assistant", "content": t}] for t in texts],
        [tokenizer(t, add_special_tokens=False).input_ids for t in texts],
    )
    table = torch.tensor([f(completions=chats, completion_ids=ids) for f in functions]).T
    assert (
        found == pytest.approx((table * torch.tensor([1.0, 0.5, 0.25])).nansum(1).tolist())
        and len(set(found)) == 3
    )
    with pytest.raises(
        ValueError, match="soft_overlong_punishment_reward reads completion_ids; pass tokenizer="
    ):
        task_from_function(ROWS, reward_funcs=functions)


def test_accuracy_reward_unchanged():
    pytest.importorskip("math_verify")
    from trl.rewards import accuracy_reward

    rows = [
        {"prompt": f"{i}/3 as a fraction", "solution": rf"$\frac{{{i}}}{{3}}$", "split": "train"}
        for i in (1, 2)
    ]
    task = task_from_function(rows, reward_funcs=accuracy_reward)
    problems = task.problems(2)
    right = [rf"\boxed{{{p.data['solution'].strip('$')}}}" for p in problems]
    assert [v.reward for v in judge_all(task, problems, right)] == [1.0, 1.0] and [
        v.reward for v in judge_all(task, problems, right[::-1])
    ] == [0.0, 0.0]


def test_async_reward_functions_also_under_a_running_loop():
    import asyncio

    async def reward(completions, **_):
        await asyncio.sleep(0)
        return [1.0] * len(completions)

    task = task_from_function(ROWS, reward_funcs=reward)
    assert task.judge(task.problems(1)[0], "x") == Verdict(1.0)

    async def notebook():
        return task.judge(task.problems(1)[0], "x")

    assert asyncio.run(notebook()) == Verdict(1.0)


def test_missing_columns_are_none_and_wrong_counts_an_error():
    rows = [{"prompt": "a", "hint": "h", "split": "train"}, {"prompt": "b", "split": "train"}]
    seen = {}
    task = task_from_function(
        rows, reward_funcs=lambda completions, **c: seen.update(c) or [0.0] * len(completions)
    )
    judge_all(task, task.problems(2), ["", ""])
    assert sorted(seen["hint"], key=str) == [None, "h"]
    short = task_from_function(rows, reward_funcs=lambda completions, **c: [0.0])
    with pytest.raises(
        JudgeError,
        match="failed on 2 attempts together, though on none of them alone: ValueError: .* "
        "returned 1 rewards for 2",
    ):
        judge_all(short, short.problems(2), ["", ""])
