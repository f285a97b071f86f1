"""What a task is: problems, a judge, and nothing else.

Any object with `problems(n, split, seed)` and `judge(problem, completion)` is a task; nothing needs
to be inherited.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from sdpo_lab.core.checks import (
    check_choice,
    check_kind,
    check_range,
    check_reward,
    check_text,
    is_message,
    short_repr,
)

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Problem:
    """One question: a chat that ends in a user turn, and what the task's judge needs to know."""

    id: str  #: stable name; the sampling noise of its attempts depends on it
    messages: list[dict[str, str]]  #: chat messages, `{"role": ..., "content": ...}`
    data: dict[str, Any] = field(default_factory=dict)  #: JSON-able; only the task reads it

    def __post_init__(self) -> None:
        check_text("id", self.id, "make it one, for instance str(number)")
        if not self.id or any("\ud800" <= c <= "\udfff" for c in self.id):
            raise ValueError(
                "id must be a string with something in it that UTF-8 can hold; got "
                f"{short_repr(self.id)}"
            )
        chat = 'a chat, a list such as [{"role": "user", "content": "..."}]'
        check_kind("messages", self.messages, list, chat)
        check_kind("data", self.data, dict, "a dictionary")


@dataclass(frozen=True)
class Verdict:
    """What the environment says of one attempt.

    `reward` is a number from -1e6 to 1e6, by convention in [0, 1]; `feedback` is any text, "" when
    there is nothing to say. Raises TypeError or ValueError for anything else.
    """

    reward: float
    feedback: str = ""

    def __post_init__(self) -> None:
        check_reward("reward", self.reward)
        if not isinstance(self.feedback, str):
            kind = type(self.feedback).__name__
            raise TypeError(
                f"feedback must be a string, got {short_repr(self.feedback)} ({kind}); use '' when "
                "there is none"
            )


@runtime_checkable
class Task(Protocol):
    """The protocol the trainer relies on.

    Optional besides: `name`, `dials`, `judge_many(problems, completions)`.
    """

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems of "train" or "test"; the two splits share none."""

    def judge(self, problem: Problem, completion: str) -> Verdict | tuple[float, str]:
        """Judge the decoded text of one attempt (without special tokens)."""


def as_verdict(value: Verdict | tuple[float, str]) -> Verdict:
    """What a judge may return: a `Verdict` or a `(reward, feedback)` pair.

    Raises TypeError, with its type, for anything else.
    """
    if isinstance(value, Verdict):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return Verdict(*value)
    raise TypeError(
        "judge() must return a Verdict or a (reward, feedback) pair, got "
        f"{type(value).__name__}: {short_repr(value)}"
    )


def check_problems_asked(n: object, split: object, seed: object) -> None:
    """The arguments of a shipped task's `problems`.

    Raises TypeError or ValueError for one that is out of its range.
    """
    check_range("n", n, int, 1, 1_000_000)
    check_choice("split", split, SPLITS)
    check_range("seed", seed, int, 0, 2**63 - 1)


def draw_problems(task: Task, n: int, split: str, seed: int) -> list[Problem]:
    """`n` problems of a task.

    Raises ValueError when it gives another number, two with the same id, or one that does not end
    with something a user says; TypeError for anything else than a `Problem`.
    """
    check_range("seed", seed, int, 0, 2**63 - 1)
    call = f"{type(task).__name__}.problems({n}, split={split!r}, seed={seed})"
    problems = check_problems(task.problems(n, split=split, seed=seed), f"what {call} gave")
    ids = [p.id for p in problems]
    if len(problems) != n:
        raise ValueError(f"{call} gave {len(problems)} problems; it must give {n}")
    if len(set(ids)) < n:
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"{call} gave two problems with the id {twice!r}; ids must be unique")
    return problems


def check_problems(problems: Iterable[Problem], name: str = "problems") -> list[Problem]:
    """The problems as a list.

    Raises TypeError for anything else than a `Problem`, ValueError for a chat that does not end
    with something a user says.
    """
    check_kind(name, problems, Iterable, "a list of Problem objects")
    what = f"a Problem (of {name}); lab.task_from_function makes them of dictionaries"
    problems = list(problems)
    for p in problems:
        check_kind("a problem", p, Problem, what)
        for m in p.messages:
            if not is_message(m):
                raise TypeError(
                    f"messages of problem {p.id!r} must have a role and a content, both strings; "
                    f"got {short_repr(m)}"
                )
        last = p.messages[-1] if p.messages else {"role": "nobody", "content": ""}
        if last["role"] != "user" or not last["content"].strip():
            raise ValueError(
                f"messages of problem {p.id!r} must end with what the user says, and that must not "
                f"be empty; got {short_repr(p.messages[-1:])}"
            )
    return problems


def judge_all(task: Task, problems: list[Problem], completions: list[str]) -> list[Verdict]:
    """Verdicts in order, through `judge_many` where the task has one."""
    many = getattr(task, "judge_many", None)
    values: Iterable[Any]
    if not many:
        values = map(task.judge, problems, completions)
    else:
        values = check_count(many(problems, completions), len(completions))
    verdicts = []
    for problem, value in zip(problems, values):
        try:
            verdicts.append(as_verdict(value))
        except (TypeError, ValueError) as error:
            raise type(error)(f"the verdict on problem {problem.id!r}: {error}") from error
    return verdicts


def check_count(values: Any, count: int) -> Any:
    """What judge_many() gave. Raises ValueError unless it is one for each completion."""
    sized = hasattr(values, "__len__")
    if not sized or len(values) != count:
        given = len(values) if sized else type(values).__name__
        raise ValueError(
            f"judge_many() returned {given} verdicts for {count} completions; it must return a "
            "list of one each"
        )
    return values
