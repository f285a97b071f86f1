"""What a task is: problems, a judge, and nothing else.

Any object with `problems(n, split, seed)` and `judge(problem, completion)` is a task; nothing needs to be inherited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Problem:
    """One question: a chat that ends in a user turn, and whatever the task's judge needs to know about it."""

    id: str  #: stable name; the sampling noise of its attempts depends on it
    messages: list[dict[str, str]]  #: chat messages, `{"role": ..., "content": ...}`
    data: dict[str, Any] = field(default_factory=dict)  #: JSON-able; only the task reads it


@dataclass(frozen=True)
class Verdict:
    """What the environment says of one attempt.

    `reward` is a finite number, by convention in [0, 1]; `feedback` is any text, "" when there is nothing to say.
    """

    reward: float
    feedback: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.reward, bool) or not isinstance(self.reward, (int, float)):
            raise TypeError(f"reward must be a number, got {self.reward!r} ({type(self.reward).__name__})")
        if not math.isfinite(self.reward):
            raise ValueError(f"reward must be finite, got {self.reward!r}; return 0.0 for an attempt that cannot be judged")
        if not isinstance(self.feedback, str):
            raise TypeError(f"feedback must be a string, got {type(self.feedback).__name__}; use '' when there is none")


@runtime_checkable
class Task(Protocol):
    """The protocol the trainer relies on. Optional besides: `name`, `dials`, `judge_many(problems, completions)`."""

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems of "train" or "test"; the two splits share none."""

    def judge(self, problem: Problem, completion: str) -> Verdict | tuple[float, str]:
        """Judge the decoded text of one attempt (without special tokens)."""


def as_verdict(value: Verdict | tuple[float, str]) -> Verdict:
    """A judge may return a `Verdict` or a `(reward, feedback)` pair; anything else is refused with its type."""
    if isinstance(value, Verdict):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return Verdict(*value)
    raise TypeError(f"judge() must return a Verdict or a (reward, feedback) pair, got {type(value).__name__}: {value!r}")


def draw_problems(task: Task, n: int, split: str, seed: int) -> list[Problem]:
    """`n` problems of a task. Raises ValueError when it gives another number, or two with the same id."""
    problems = list(task.problems(n, split=split, seed=seed))
    ids = [p.id for p in problems]
    if len(problems) != n:
        raise ValueError(f"{type(task).__name__}.problems({n}, split={split!r}, seed={seed}) gave {len(problems)} problems; it must give {n}")
    if len(set(ids)) < n:
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"{type(task).__name__}.problems({n}, split={split!r}, seed={seed}) gave two problems with the id {twice!r}; ids must be unique")
    return problems


def judge_all(task: Task, problems: list[Problem], completions: list[str]) -> list[Verdict]:
    """Verdicts in order, through `judge_many` where the task has one."""
    many = getattr(task, "judge_many", None)
    values = many(problems, completions) if many else [task.judge(p, c) for p, c in zip(problems, completions)]
    if len(values) != len(completions):
        raise ValueError(f"judge_many() returned {len(values)} verdicts for {len(completions)} completions; it must return one each")
    return [as_verdict(v) for v in values]
