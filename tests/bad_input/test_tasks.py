"""Tasks that give what no run can use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdpo_lab.core.task import Problem, draw_problems, judge_all
from sdpo_lab.tasks.adapters import Guard, JudgeError, task_from_function
from sdpo_lab.trainer import SDPOTrainer
from tests.bad_input.rows import CHAT, QUESTION, Gives, Sums, small
from tests.bad_input.values import HUGE, INF, NAN


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda n: [], "gave 0 problems; it must give 2"),
        (lambda n: None, "must be a list of Problem objects, got None"),
        (lambda n: [QUESTION] * n, "two problems with the id 'p'; ids must be unique"),
        (lambda n: [{"prompt": "a"}] * n, "must be a Problem .* got {'prompt': 'a'}"),
        (lambda n: [Problem(str(i), []) for i in range(n)], "'0' must end with what the user says"),
        (
            lambda n: [Problem(str(i), [{"role": "user", "content": " \n"}]) for i in range(n)],
            "'0' must end with what the user says, and that must not be empty",
        ),
        (
            lambda n: [
                Problem(str(i), [*CHAT, {"role": "assistant", "content": "4"}]) for i in range(n)
            ],
            "must end with what the user says",
        ),
        (
            lambda n: [Problem(str(i), [{"role": "user"}]) for i in range(n)],
            "a role and a content, both strings; got {'role': 'user'}",
        ),
        (
            lambda n: [Problem(str(i), ["hi"]) for i in range(n)],
            "a role and a content, both strings; got 'hi'",
        ),
    ],
)
def test_problems(made, words, one):
    """Refused before anything is sampled, and the trainer is as it was."""
    with pytest.raises((TypeError, ValueError), match=words):
        draw_problems(Gives(made), 2, "train", 0)
    trainer = SDPOTrainer(one.model, one.tokenizer, Gives(made), small())
    with pytest.raises((TypeError, ValueError), match=words):
        trainer.step()
    assert len(trainer.history) == 0 and trainer.optimizer_steps == 0


def test_a_list_without_problems_or_with_an_empty_prompt():
    for bad, words in (
        ([], r"at least one problem.*got \[\]"),
        ([{"prompt": ""}], "prompt of problem 0 is empty"),
        ([{"prompt": "a"}, {"prompt": "\t "}], r"problem 1 is empty.*got '\\t '"),
        ([{"prompt": [{"role": "user", "content": ""}]}], "problem 0 is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            task_from_function(bad, len)


BAD_VERDICTS = [
    (None, "NoneType"),
    ("1.0", "got str: '1.0'"),
    ((NAN, ""), "reward must be finite, got nan"),
    ((INF, ""), "reward must be finite, got inf"),
    ((None, ""), "reward must be a number, got None"),
    (("1", ""), "reward must be a number, got '1'"),
    ((True, ""), "reward must be a number, got True"),
    ((1.0, None), "feedback must be a string, got None"),
    ((1.0, 3), "feedback must be a string, got 3"),
    ((1.0, "", ""), "got tuple"),
    ([1.0, ""], "got list"),
    ({"reward": 1.0}, "got dict"),
    ((torch.tensor(1.0), ""), "reward must be a number, got"),
]


@pytest.mark.parametrize("verdict, words", BAD_VERDICTS)
def test_verdicts(verdict, words, one):
    """What a judge returns: refused with the problem's name, guarded or not; nothing of the run is
    lost."""
    with pytest.raises((TypeError, ValueError), match=f"problem 'train-0-0': .*{words}"):
        judge_all(Gives(verdict=verdict), Sums().problems(1), ["a"])
    with pytest.raises(JudgeError, match=f"problem 'train-0-0'.*{words}"):
        Guard(Gives(verdict=verdict)).judge(Sums().problems(1)[0], "a")
    trainer = SDPOTrainer(one.model, one.tokenizer, Gives(verdict=verdict), small())
    with pytest.raises((TypeError, ValueError), match=words):
        trainer.step()
    assert len(trainer.history) == 0 and trainer.optimizer_steps == 0


@pytest.mark.parametrize(
    "returned, words",
    [
        (None, "returned NoneType verdicts for 2"),
        (3, "returned int"),
        ([], "returned 0 verdicts for 2"),
        ([(1.0, "")] * 3, "returned 3 verdicts for 2"),
        ([(1.0, ""), (NAN, "")], "problem 'train-0-1': reward must be finite"),
    ],
)
def test_verdicts_of_a_batch(returned, words):
    task = Gives()
    task.judge_many = lambda problems, completions: returned
    with pytest.raises((TypeError, ValueError), match=words):
        judge_all(task, Sums().problems(2), ["a", "b"])


@pytest.mark.parametrize(
    "returned, words",
    [
        (
            ["1"],
            r"a reward of the reward function mine must be a number, or None where it does "
            r"not count, got '1' \(str\)",
        ),
        ([[1.0]], r"function mine must be a number.*got \[1.0\]"),
        (
            3.0,
            r"the reward function mine must return a list with one reward for each "
            r"completion, got 3.0 \(float\)",
        ),
        (None, "function mine must return a list.*got None"),
        ("1", "function mine must return a list.*got '1'"),
        (torch.tensor(1.0), "function mine must return a list"),
        ([INF], "function mine must be finite, got inf"),
        ([HUGE], "function mine must be from -1000000 to 1000000, got 1000"),
        ([1e308], "function mine must be from -1000000 to 1000000, got 1e"),
        ([1j], r"function mine must be a number.*got 1j"),
        ([1.0, 2.0], "function mine returned 2 rewards for 1 completions"),
        ([torch.ones(2)], "function mine must be a number.*Tensor of shape"),
    ],
)
def test_rewards_of_trl_s_functions(returned, words):
    def mine(**columns):
        return returned

    task = task_from_function([{"prompt": "a", "split": "train"}], reward_funcs=mine)
    with pytest.raises(JudgeError, match=words) as caught:
        task.judge(task.problems(1)[0], "x")
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


def test_rewards_that_are_numbers_of_others():
    for returned, reward in (
        (torch.tensor([0.5]), 0.5),
        (np.array([2]), 2.0),
        ([np.float32(0.5)], 0.5),
        ((True,), 1.0),
        ([torch.tensor(0.25)], 0.25),
        (iter([3]), 3.0),
    ):
        task = task_from_function(
            [{"prompt": "a", "split": "train"}],
            reward_funcs=lambda returned=returned, **columns: returned,
        )
        found = task.judge(task.problems(1)[0], "x").reward
        assert found == reward and type(found) is float
    with pytest.raises(JudgeError, match="reward must be from -1000000 to 1000000, got 1000"):
        task_from_function(
            [{"prompt": "a", "split": "train"}], lambda problem, completion: HUGE
        ).judge(QUESTION, "x")
