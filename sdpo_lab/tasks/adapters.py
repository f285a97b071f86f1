"""A task of your own in a few lines: from a list or a function, with a judge or with TRL's reward
functions (`trl_rewards`), in a guard for a judge that may fail (`guard`)."""

from __future__ import annotations

import hashlib
import json
import numbers
import random
from collections.abc import Callable, Iterable
from typing import Any

from sdpo_lab.core.checks import check_choice, check_reward, short_repr
from sdpo_lab.core.task import SPLITS, Problem, Task, Verdict, as_verdict, check_problems_asked
from sdpo_lab.tasks.conventions import is_test
from sdpo_lab.tasks.guard import Guard, JudgeError
from sdpo_lab.tasks.trl_rewards import Rewards, python_number

__all__ = ["FunctionTask", "Guard", "JudgeError", "RewardTask", "Rewards", "task_from_function"]


def task_from_function(
    problems: Iterable | Callable,
    judge: Callable | None = None,
    *,
    reward_funcs: Callable | list[Callable] | None = None,
    reward_weights: list[float] | None = None,
    feedback: Callable | None = None,
    tokenizer: Any = None,
    name: str = "custom",
    on_error: str = "raise",
    seconds: float | None = None,
) -> Task:
    """A task of your own.

    problems        `Problem`s, or dictionaries with "prompt" (a string or a chat), "messages" (a
                    chat) or "question" (a string), and optionally "id" and "split"; or a function
                    (n, split, seed) -> n of either
    judge           judge(problem, completion) -> Verdict, (reward, feedback), or a reward alone. A
                    problem given as a dictionary arrives as that dictionary
    reward_funcs    in place of `judge`: one or several of TRL's reward functions, see `Rewards`;
                    weighed by `reward_weights` (default 1) and added up
    feedback        with `reward_funcs`: feedback(problem, completion) -> str, what the environment
                    says of the attempt; without, nothing
    tokenizer       with `reward_funcs` that read `completion_ids`
    name            stands in records and checkpoints, and begins the ids of problems without one
    on_error        "raise", or "zero" to keep a run alive when the judge fails, see `Guard`
    seconds         time limit of one call of the judge, or of all reward functions on a batch, see
                    `Guard`; None: none

    Of a list without "split", every fifth problem, by the checksum of its prompt, is a test
    problem. Raises ValueError for an empty list, an id or a prompt that is there twice where it
    must not, and TypeError for anything that is not a problem.
    """
    if (judge is None) == (reward_funcs is None):
        raise ValueError(
            "give either judge=, a function (problem, completion) -> (reward, feedback), "
            "or reward_funcs=, one or more of TRL's reward functions"
        )
    with_rewards = dict(reward_weights=reward_weights, feedback=feedback, tokenizer=tokenizer)
    for key, value in with_rewards.items():
        if judge is not None and value is not None:
            raise ValueError(
                f"{key} goes with reward_funcs; a judge of your own returns (reward, feedback) "
                "itself"
            )
    for key, value in (("judge", judge), ("feedback", feedback)):
        if value is not None and not callable(value):
            raise TypeError(
                f"{key} must be a function (problem, completion), "
                f"got {short_repr(value)} ({type(value).__name__})"
            )
    if tokenizer is not None and not callable(tokenizer):
        raise TypeError(f"tokenizer must be the model's tokenizer, got {short_repr(tokenizer)}")
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a string with something in it, got {short_repr(name)}")
    if judge is not None:
        task = FunctionTask(problems, judge, name)
    else:
        rewards = Rewards(reward_funcs, reward_weights, feedback, tokenizer)
        task = RewardTask(problems, rewards, name)
    return Guard(task, on_error, seconds)


class FunctionTask:
    """What `task_from_function` makes of a judge, inside its guard.

    scorer        the judge
    source        the function that gives problems; None where a list was given
    dictionaries  do its problems come as dictionaries? None until a function has given the first
    pools         of a list, the problems of each split
    """

    def __init__(self, problems: Iterable | Callable, scorer: Callable, name: str) -> None:
        self.name, self.scorer, self.dials = name, scorer, {}
        self.source = problems if callable(problems) else None
        self.dictionaries: bool | None = None
        self.pools: dict[str, list[Problem]] = {}
        if self.source is None:
            self.pools = split_problems(self.read(problems))

    def read(self, given: Iterable) -> list[Problem]:
        """Problems of what was given. Raises TypeError or ValueError that name the wrong entry."""
        if isinstance(given, (str, dict)) or not isinstance(given, Iterable):
            raise TypeError(
                "problems must be a list of Problem objects or dictionaries, or a function "
                f"(n, split, seed) that gives one; got {type(given).__name__}: {short_repr(given)}"
            )
        given = list(given)
        if not any(all(isinstance(g, kind) for g in given) for kind in (Problem, dict)):
            kinds = ", ".join(sorted({type(g).__name__ for g in given}))
            raise TypeError(
                f"problems must all be Problem objects or all dictionaries, got {kinds}"
            )
        if given:
            self.dictionaries = isinstance(given[0], dict)
        problems = [
            as_problem(g, i, self.name) if self.dictionaries else g for i, g in enumerate(given)
        ]
        ids = [p.id for p in problems]
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            first, second = [place for place, i in enumerate(ids) if i == twice][:2]
            message = f"problems {first} and {second} have the same id {twice!r}"
            if self.dictionaries and "id" not in given[second]:
                message += ", since their prompts are the same; drop one, or give each an 'id'"
            raise ValueError(message)
        return problems

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems; the same arguments give the same ones. Raises ValueError when a
        list has not so many."""
        check_problems_asked(n, split, seed)
        if self.source:
            return self.read(self.source(n, split, seed))
        pool, other = self.pools[split], self.pools["train" if split == "test" else "test"]
        if len(pool) < n:
            fewer = (
                "evaluate(n=...)"
                if split == "test"
                else "SDPOConfig(generation_batch_size=...), which is attempts, "
                "num_generations a problem"
            )
            raise ValueError(
                f"the task {self.name!r} has {len(pool)} {split} problems (and {len(other)} of the "
                f"other split), asked for {n}. Give it more, ask for fewer ({fewer}), "
                'or say in each problem which "split" it is of'
            )
        return random.Random(f"{self.name}/{seed}/{split}").sample(pool, n)

    def as_given(self, problem: Problem) -> Problem | dict[str, Any]:
        """The problem as it was given."""
        if self.dictionaries is None:  # a function's, and attempts older than this object
            self.problems(1)
        return problem.data if self.dictionaries else problem

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """The judge's verdict; a number alone (or a truth value) is a reward without feedback."""
        value = self.scorer(self.as_given(problem), completion)
        if isinstance(value, numbers.Real):
            return Verdict(check_reward("reward", python_number(value)))
        return as_verdict(value)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(pool)} {split}" for split, pool in self.pools.items())
        return f"task_from_function({self.name!r}: {counts or 'problems by a function'})"


class RewardTask(FunctionTask):
    """The same of TRL's reward functions, which see a whole batch at once."""

    def judge(self, problem: Problem, completion: str) -> Verdict:
        return self.judge_many([problem], [completion])[0]

    def judge_many(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        return self.scorer(problems, [self.as_given(p) for p in problems], completions)


def split_problems(problems: list[Problem]) -> dict[str, list[Problem]]:
    """{split: problems}, by "split" where the problems have one, else by the prompt's checksum."""
    if not problems:
        raise ValueError("problems must hold at least one problem; the list is empty, got []")
    named = [p.data.get("split") for p in problems]
    if any(s is not None for s in named):
        for p, s in zip(problems, named):
            check_choice(f"the split of problem {p.id!r} (all or none have one)", s, SPLITS)
    pools: dict[str, list[Problem]] = {s: [] for s in SPLITS}
    for p, s in zip(problems, named):
        pools[s or ("test" if is_test(serial(p.messages)) else "train")].append(p)
    train = {checksum(p.messages): p.id for p in pools["train"]}
    for p in pools["test"]:
        if checksum(p.messages) in train:
            raise ValueError(
                f"the test problem {p.id!r} has the prompt of the train problem "
                f"{train[checksum(p.messages)]!r}; the splits must share none"
            )
    return pools


def as_problem(row: dict[str, Any], place: int, name: str) -> Problem:
    """The problem that a dictionary describes; its `data` is that dictionary itself.

    Raises TypeError or ValueError, with `place`, for one that describes none.
    """
    chat = next((row[key] for key in ("prompt", "messages", "question") if key in row), None)
    chat = [{"role": "user", "content": chat}] if isinstance(chat, str) else chat
    if chat is None:
        raise ValueError(
            f"problem {place} has neither 'prompt', 'messages' nor 'question'; "
            f"it has {', '.join(map(repr, row)) or 'nothing'}"
        )
    if not isinstance(chat, list) or not chat or not all(map(is_message, chat)):
        raise TypeError(
            f"the prompt of problem {place} must be a string or a list of messages with a role and "
            f"a content, both strings; got {short_repr(chat)}"
        )
    role, content = chat[-1]["role"], chat[-1]["content"]
    if role != "user":
        raise ValueError(
            f"the chat of problem {place} ends with the role {role!r}; "
            "it must end with what the user says, without the answer"
        )
    if not content.strip():
        raise ValueError(
            f"the prompt of problem {place} is empty, it must say something; got "
            f"{short_repr(content)}"
        )
    given = row.get("id")
    if given is not None and (isinstance(given, bool) or not isinstance(given, (str, int))):
        raise TypeError(
            f"the id of problem {place} must be a string or a whole number, got {short_repr(given)}"
        )
    return Problem(f"{name}-{checksum(chat)[:12]}" if given is None else str(given), chat, row)


def is_message(message: object) -> bool:
    """Is this a dictionary with a role and a content, both strings?"""
    return isinstance(message, dict) and all(
        isinstance(message.get(key), str) for key in ("role", "content")
    )


def serial(messages: list[dict[str, str]]) -> str:
    """A chat as one text, of which checksums are made."""
    return json.dumps([[m["role"], m["content"]] for m in messages])


def checksum(messages: list[dict[str, str]]) -> str:
    return hashlib.sha256(serial(messages).encode()).hexdigest()
