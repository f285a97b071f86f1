"""Judges that fail: named, guarded, and no run is lost."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.task import Problem, Verdict, judge_all
from sdpo_lab.tasks.adapters import Guard, JudgeError, task_from_function
from tests.shared.own_tasks import ROWS, exact, trainer


# judges that fail
def fussy(row, completion):
    if "bad" in completion:
        raise ZeroDivisionError("division by zero")
    return 1.0, "fine"


def test_an_error_names_the_problem_and_the_completion_and_keeps_the_cause():
    task = task_from_function(ROWS, fussy)
    p = task.problems(1)[0]
    with pytest.raises(
        JudgeError,
        match=rf"problem '{p.id}', completion 'bad x+\.\.\. \(5004 characters\)': "
        rf"ZeroDivisionError: division by zero",
    ) as caught:
        task.judge(p, "bad " + "x" * 5000)
    assert isinstance(caught.value.__cause__, ZeroDivisionError) and len(str(caught.value)) < 500
    for value, words in (
        (None, "got NoneType"),
        ((float("nan"), ""), "must be finite"),
        ((1.0, None), "feedback must be a string"),
    ):
        with pytest.raises(JudgeError, match=words):
            task_from_function(ROWS, lambda row, c, value=value: value).judge(p, "x")


def test_zero_keeps_the_run_alive_and_warns_without_a_flood():
    task = task_from_function(ROWS, fussy, on_error="zero")
    problems = task.problems(4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = judge_all(task, problems, ["bad", "good", "bad", "good"])
        for _ in range(60):
            judge_all(task, problems, ["bad"] * 2 + ["good"] * 2)
    assert (
        found == [Verdict(0.0), Verdict(1.0, "fine"), Verdict(0.0), Verdict(1.0, "fine")]
        and task.failures == 122
    )
    assert [str(w.message).split(" could")[0] for w in caught] == [
        "1 attempt",
        "10 attempts",
        "100 attempts",
    ]
    assert "ZeroDivisionError" in str(caught[0].message) and problems[0].id in str(
        caught[0].message
    )


def test_any_task_can_be_guarded_and_stays_what_it_was():
    task = lab.load_task("toolcall", seed=3)
    guarded = Guard(task, on_error="zero")
    assert (
        guarded.name == "toolcall"
        and guarded.dials == task.dials
        and guarded.problems(3) == task.problems(3)
        and not hasattr(guarded, "state_dict")
    )
    p = task.problems(1)[0]
    assert guarded.judge(p, task.solution(p)) == Verdict(1.0) and guarded.solution(
        p
    ) == task.solution(p)
    assert guarded.judge(p, "nonsense") == task.judge(p, "nonsense")
    assert copy.deepcopy(task.dials) == guarded.dials
    with pytest.raises(TypeError, match=r"must have a method problems\(\)"):
        Guard(3)


def test_of_a_batch_that_fails_the_one_at_fault_is_named():
    class Batch:
        def problems(self, n, split="train", seed=0):
            return [Problem(str(i), [{"role": "user", "content": str(i)}]) for i in range(n)]

        def judge(self, problem, completion):
            return self.judge_many([problem], [completion])[0]

        def judge_many(self, problems, completions):
            return [(1 / len(c), "") for c in completions]

    problems = Batch().problems(3)
    with pytest.raises(JudgeError, match="problem '1', completion ''"):
        judge_all(Guard(Batch()), problems, ["a", "", "bb"])
    with pytest.warns(UserWarning, match="1 attempt could not be judged"):
        assert [v.reward for v in judge_all(Guard(Batch(), "zero"), problems, ["a", "", "bb"])] == [
            1,
            0,
            0.5,
        ]


def test_an_interrupt_is_not_swallowed():
    def judge(row, completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task_from_function(ROWS, judge, on_error="zero").judge(
            task_from_function(ROWS, exact).problems(1)[0], ""
        )


def test_a_judge_that_raises_costs_a_run_nothing(tiny):
    """History and weights stay at the last whole step, the lock is free, and going on gives what an
    undisturbed run gives."""
    fail = {"now": False}

    def judge(row, completion):
        if fail["now"]:
            raise OSError("the judge's server is away")
        return float(len(completion) % 2), f"{len(completion)} letters"

    other = (copy.deepcopy(tiny[0]), tiny[1])
    task = task_from_function(ROWS, judge)
    t, calm = trainer(tiny, task), trainer(other, task)
    t.step(), calm.step()
    before = [p.detach().clone() for p in t.model.parameters()]
    fail["now"] = True
    for _ in range(2):
        with pytest.raises(JudgeError, match="the judge's server is away"):
            t.step()
        with pytest.raises(JudgeError):
            t.evaluate(4)
    fail["now"] = False
    assert (
        len(t.history) == 1
        and t.optimizer_steps == 1
        and all(torch.equal(p, b) for p, b in zip(t.model.parameters(), before))
    )
    free = []
    thread = threading.Thread(target=lambda: free.append(t.lock.acquire(timeout=5)))
    thread.start()
    thread.join()
    assert free == [True]
    t.lock = threading.RLock()  # the thread that held it is gone
    mine, theirs = t.step(), calm.step()
    assert mine.loss == theirs.loss and [r.text for r in mine.rollouts] == [
        r.text for r in theirs.rollouts
    ]
    assert all(torch.equal(p, q) for p, q in zip(t.model.parameters(), calm.model.parameters()))


def test_a_run_on_ones_own_task_can_be_saved_and_gone_on_with(tiny, tmp_path):
    task = task_from_function(ROWS, exact, name="sums")
    t = trainer(tiny, task)
    t.step()
    t.save(tmp_path / "run")
    again = lab.SDPOTrainer.resume(
        tmp_path / "run", task=task_from_function(ROWS, exact, name="sums")
    )
    assert again.step().loss == t.step().loss
    with pytest.raises(ValueError, match="a task of your own"):
        lab.SDPOTrainer.resume(tmp_path / "run")
    with pytest.raises(ValueError, match="'sums'.*'other'"):
        lab.SDPOTrainer.resume(tmp_path / "run", task=task_from_function(ROWS, exact, name="other"))
