"""A judge that hangs; and the messages themselves."""

from __future__ import annotations

import threading
import time
import warnings

import pytest
import torch

from sdpo_lab.core.checks import printable, short_repr
from sdpo_lab.core.task import Verdict, judge_all
from sdpo_lab.tasks import guard
from sdpo_lab.tasks.adapters import Guard, JudgeError, task_from_function
from tests.bad_input.rows import Sums


def hanging(release, words=("hang",)):
    return lambda row, completion: (
        release.wait(30) if completion in words else None,
        (1.0, "fine"),
    )[1]


@pytest.fixture
def release():
    """Set in the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_judge_that_hangs_is_left_behind_in_time(release):
    task = task_from_function([{"prompt": "a", "split": "train"}], hanging(release), seconds=0.2)
    p, began = task.problems(1)[0], time.monotonic()
    assert task.judge(p, "quick") == Verdict(1.0, "fine")
    with pytest.raises(
        JudgeError,
        match=f"problem '{p.id}', completion 'hang': TimeoutError: the judge was not done after "
        f"seconds=0.2",
    ) as caught:
        task.judge(p, "hang")
    assert isinstance(caught.value.__cause__, TimeoutError) and time.monotonic() - began < 5
    assert "seconds=0.2" in repr(task) and task.judge(p, "quick") == Verdict(1.0, "fine"), (
        "the run can go on"
    )


def test_with_zero_a_run_goes_on_until_too_many_hang(release):
    task = task_from_function(
        [{"prompt": "a", "split": "train"}], hanging(release), on_error="zero", seconds=0.05
    )
    p = task.problems(1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(guard.MAX_HANGING_CALLS - 1):
            assert task.judge(p, "hang") == Verdict(0.0)
        assert task.failures == guard.MAX_HANGING_CALLS - 1 and task.judge(p, "quick").reward == 1
        threads = threading.active_count()
        for _ in range(3):
            with pytest.raises(
                JudgeError,
                match=f"{guard.MAX_HANGING_CALLS} calls of the judge hang at once.*"
                "Give the judge a time limit of its own",
            ):
                task.judge(p, "hang")
        assert threading.active_count() == threads + 1, "no more are started"
        release.set()
        while any(t.is_alive() for t in task.hanging):
            time.sleep(0.01)
        assert task.judge(p, "quick").reward == 1, "those that end make room again"


def test_of_a_batch_that_hangs_the_one_at_fault_is_found(release):
    class Batch(Sums):
        def judge_many(self, problems, completions):
            return [(release.wait(30) if c == "hang" else None, (1.0, c))[1] for c in completions]

        def judge(self, problem, completion):
            return self.judge_many([problem], [completion])[0]

    problems = Sums().problems(3)
    with pytest.warns(UserWarning, match="1 attempt could not be judged"):
        found = judge_all(Guard(Batch(), "zero", seconds=0.2), problems, ["a", "hang", "b"])
    assert [v.reward for v in found] == [1, 0, 1]


def test_what_a_judge_raises_in_its_thread_reaches_the_run():
    def judge(row, completion):
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}.get(
            completion
        ) or ZeroDivisionError("by zero")

    task = task_from_function(
        [{"prompt": "a", "split": "train"}], judge, on_error="zero", seconds=5
    )
    for words, error in (("exit", SystemExit), ("interrupt", KeyboardInterrupt)):
        with pytest.raises(error):
            task.judge(task.problems(1)[0], words)
    with pytest.warns(UserWarning, match="ZeroDivisionError: by zero"):
        assert task.judge(task.problems(1)[0], "x") == Verdict(0.0)


def test_what_a_message_shows():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

    assert (
        short_repr("a\x1b[31m\n\u202e\ud800") == repr("a\x1b[31m\n\u202e\ud800")
        and "\x1b" not in short_repr("\x1b")
        and printable("a\x1b[31m\u202e") == "a\\x1b[31m\\u202e"
    )
    assert (
        short_repr("x" * 1000).endswith("... (1002 characters)")
        and len(short_repr(["x" * 10_000])) < 200
    )
    assert (
        short_repr(torch.zeros(2, 3)) == "Tensor of shape (2, 3), torch.float32"
        and short_repr(Rude()) == "Rude without a repr (RuntimeError)"
    )
    assert (
        short_repr(10**5000) == "int without a repr (ValueError)"
        and short_repr(None) == "None"
        and short_repr(3.5) == "3.5"
    )
