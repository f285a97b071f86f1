"""02_self_teacher: each check knows the right answer and every wrong one it claims to recognise."""

from __future__ import annotations

import math

import jupytext
import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.analysis.written import written_names
from sdpo_lab.exercises import check_advantages, check_message, check_shift_bits
from sdpo_lab.tasks.toolcall.world import BY_NAME
from tests.conftest import ROOT


def at(table, ids):
    return table.gather(1, ids[:, None])[:, 0]


ADVANTAGES = {
    "the sign is turned round": lambda p, q, ids: at(p, ids) - at(q, ids),
    "all tokens of the vocabulary": lambda p, q, ids: q - p,
    "the student's favourite": lambda p, q, ids: (q - p).gather(1, p.argmax(1, keepdim=True))[:, 0],
    "the teacher's favourite": lambda p, q, ids: (q - p).gather(1, q.argmax(1, keepdim=True))[:, 0],
    "a difference of probabilities": lambda p, q, ids: at(q.exp(), ids) - at(p.exp(), ids),
    "a ratio of probabilities": lambda p, q, ids: at(q.exp(), ids) / at(p.exp(), ids),
    "a ratio of logarithms": lambda p, q, ids: at(q, ids) / at(p, ids),
    "one number for the attempt": lambda p, q, ids: at(q - p, ids).mean(),
    "a divergence": lambda p, q, ids: (p.exp() * (p - q)).sum(-1),
    "a tensor was expected": lambda p, q, ids: at(q - p, ids).tolist(),
    "the shape is": lambda p, q, ids: at(q - p, ids)[None],
    "I do not know this mistake": lambda p, q, ids: at(q - p, ids) + 1,
}
BITS = {
    "these are nats": lambda p, q: (q.exp() * (q - p)).sum(),
    "multiplied by log 2": lambda p, q: (q.exp() * (q - p)).sum() * math.log(2),
    "KL(student || teacher)": lambda p, q: (p.exp() * (p - q)).sum() / math.log(2),
    "the mean over the tokens": lambda p, q: (q.exp() * (q - p)).sum(-1).mean() / math.log(2),
    "one number for every token": lambda p, q: (q.exp() * (q - p)).sum(-1) / math.log(2),
    "nothing weighs the differences": lambda p, q: (q - p).sum() / math.log(2),
    "I do not know this mistake": lambda p, q: torch.tensor(7.0),
}


@pytest.mark.parametrize("says", ADVANTAGES)
def test_wrong_advantages_are_named(says):
    found = check_advantages(ADVANTAGES[says])
    assert found.startswith("✗ advantages: ") and says in found


@pytest.mark.parametrize("says", BITS)
def test_wrong_bits_are_named(says):
    found = check_shift_bits(BITS[says])
    assert found.startswith("✗ shift_bits: ") and says in found


def test_right_answers_and_nothing_written():
    assert check_advantages(lambda p, q, ids: at(q - p, ids)).startswith("✓")
    assert check_shift_bits(lambda p, q: (q.exp() * (q - p)).sum() / math.log(2)).startswith("✓")
    assert check_shift_bits(lambda p, q: float((q.exp() * (q - p)).sum()) / math.log(2)).startswith(
        "✓"
    )
    assert check_advantages(lambda p, q, ids: None).startswith("○") and check_shift_bits(
        lambda p, q: None
    ).startswith("○")


@pytest.fixture(scope="module")
def failed():
    """(model, tokenizer, task, problem, failed attempt with one wrong name, that name, the accepted
    ones)."""
    model, tokenizer = lab.load_model()
    task = lab.load_task("toolcall", seed=100)
    for r in lab.rollout(
        model, tokenizer, task.problems(20, seed=5), 2, seed=5, max_completion_length=64
    ):
        feedback = task.judge(r.problem, r.text).feedback
        names = (
            written_names(
                task, r.problem, lab.credit(model, tokenizer, r.problem, r, feedback=feedback)
            )
            if feedback
            else []
        )
        if (
            [w.right for w in names].count(False) == 1
            and any(w.reported for w in names)
            and any(w.right for w in names)
        ):
            wrong = next(w.name for w in names if not w.right)
            return (
                model,
                tokenizer,
                task,
                r.problem,
                r,
                wrong,
                sorted(task.convention[r.problem.data["calls"][0]["tool"]].values()),
            )
    raise AssertionError("the model never wrote one wrong name beside a right one")


def test_messages(failed):
    *where, problem, attempt, wrong, accepted = failed
    task = where[2]

    def check(message):
        return check_message(*where, problem, attempt, message)

    assert check("").startswith("○") and check(None).startswith("○")
    assert "the judge's words" in check(task.judge(problem, attempt.text).feedback)
    assert "quotes the right call" in check(f"Write {task.solution(problem)} instead.")
    assert "lowers no wrong name" in check("My sister visits tomorrow.")
    assert check(f"No argument {wrong!r} here. Known: {', '.join(accepted)}").startswith(
        "✓ message: the teacher lowers " + repr(wrong)
    )
    right = next(name for name in accepted if f"{name}=" in attempt.text)
    tool = problem.data["calls"][0]["tool"]
    role = next(r for r, name in task.convention[tool].items() if name == right)
    synonyms = next(a.names for a in BY_NAME[tool].arguments if a.role == role)
    lies = [
        f"TypeError: {tool}() got an unexpected keyword argument {right!r} (accepted: "
        f"{', '.join(sorted({*accepted, name} - {right}))})"
        for name in synonyms
        if name != right
    ]
    assert any("that name is right" in check(lie) for lie in lies)


def test_the_notebook_asks_for_what_is_checked():
    source = "\n".join(
        c.source
        for c in jupytext.read(ROOT / "notebooks" / "02_self_teacher.py", fmt="py:percent").cells
    )
    for name in ("check_advantages", "check_shift_bits", "check_message"):
        assert source.count(f"checks.{name}(") >= 2, "once for the reader, once for the solution"
