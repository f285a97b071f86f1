"""A task of your own in a few lines: from a list or a function, with a judge or with TRL's reward functions; and a guard for a judge that may fail."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import numbers
import random
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sdpo_lab.core.checks import (
    check_choice,
    check_range,
    check_reward,
    check_task,
    printable,
    shown,
)
from sdpo_lab.core.task import (
    SPLITS,
    Problem,
    Task,
    Verdict,
    as_verdict,
    check_problems_asked,
    judge_all,
)
from sdpo_lab.tasks.conventions import is_test


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

    problems        `Problem`s, or dictionaries with "prompt" (a string or a chat), "messages" (a chat) or "question" (a string), and optionally
                    "id" and "split"; or a function (n, split, seed) -> n of either
    judge           judge(problem, completion) -> Verdict, (reward, feedback), or a reward alone. A problem given as a dictionary arrives
                    as that dictionary
    reward_funcs    in place of `judge`: one or several of TRL's reward functions, see `Rewards`; weighed by `reward_weights` (default 1) and added up
    feedback        with `reward_funcs`: feedback(problem, completion) -> str, what the environment says of the attempt; without, nothing
    tokenizer       with `reward_funcs` that read `completion_ids`
    name            stands in records and checkpoints, and begins the ids of problems that have none
    on_error        "raise", or "zero" to keep a run alive when the judge fails, see `Guard`
    seconds         time limit of one call of the judge, or of all reward functions on a batch, see `Guard`; None: none

    Of a list without "split", every fifth problem, by the checksum of its prompt, is a test problem. Raises ValueError for an empty list, an id
    or a prompt that is there twice where it must not, and TypeError for what is no problem.
    """
    if (judge is None) == (reward_funcs is None):
        raise ValueError(
            "give either judge=, a function (problem, completion) -> (reward, feedback), or reward_funcs=, one or more of TRL's reward functions"
        )
    for key, value in (
        ("reward_weights", reward_weights),
        ("feedback", feedback),
        ("tokenizer", tokenizer),
    ):
        if judge is not None and value is not None:
            raise ValueError(
                f"{key} goes with reward_funcs; a judge of your own returns (reward, feedback) itself"
            )
    for key, value in (("judge", judge), ("feedback", feedback)):
        if value is not None and not callable(value):
            raise TypeError(
                f"{key} must be a function (problem, completion), got {shown(value)} ({type(value).__name__})"
            )
    if tokenizer is not None and not callable(tokenizer):
        raise TypeError(f"tokenizer must be the model's tokenizer, got {shown(tokenizer)}")
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a string with something in it, got {shown(name)}")
    if judge is not None:
        return Guard(FunctionTask(problems, judge, name), on_error, seconds)
    return Guard(
        RewardTask(problems, Rewards(reward_funcs, reward_weights, feedback, tokenizer), name),
        on_error,
        seconds,
    )


class FunctionTask:
    """What `task_from_function` makes of a judge, inside its guard."""

    def __init__(self, problems: Iterable | Callable, scorer: Callable, name: str) -> None:
        self.name, self.scorer, self.dials = name, scorer, {}
        self.source = problems if callable(problems) else None
        self.dictionaries: bool | None = (
            None  # do its problems come as dictionaries? A function shows it with the first it gives
        )
        self.pools: dict[str, list[Problem]] = {}
        if self.source is None:
            self.pools = self.divide(self.read(problems))

    def read(self, given: Iterable) -> list[Problem]:
        """Problems of what was given. Raises TypeError or ValueError that say which entry is wrong and how."""
        if isinstance(given, (str, dict)) or not isinstance(given, Iterable):
            raise TypeError(
                "problems must be a list of Problem objects or dictionaries, or a function (n, split, seed) that gives one; got "
                f"{type(given).__name__}: {shown(given)}"
            )
        given = list(given)
        if not all(isinstance(g, Problem) for g in given) and not all(
            isinstance(g, dict) for g in given
        ):
            raise TypeError(
                f"problems must all be Problem objects or all dictionaries, got {', '.join(sorted({type(g).__name__ for g in given}))}"
            )
        if given:
            self.dictionaries = isinstance(given[0], dict)
        found = [
            as_problem(g, i, self.name) if self.dictionaries else g for i, g in enumerate(given)
        ]
        ids = [p.id for p in found]
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            which = [i for i, x in enumerate(ids) if x == twice]
            raise ValueError(
                f"problems {which[0]} and {which[1]} have the same id {twice!r}"
                + (
                    ""
                    if self.dictionaries is False or "id" in given[which[1]]
                    else ", since their prompts are the same; drop one, or give each an 'id'"
                )
            )
        return found

    def divide(self, found: list[Problem]) -> dict[str, list[Problem]]:
        """By "split" where the problems have one, else by the checksum of the prompt."""
        if not found:
            raise ValueError("problems must hold at least one problem; the list is empty, got []")
        named = [p.data.get("split") for p in found]
        if any(s is not None for s in named):
            for p, s in zip(found, named):
                check_choice(f"the split of problem {p.id!r} (all or none have one)", s, SPLITS)
        pools: dict[str, list[Problem]] = {s: [] for s in SPLITS}
        for p, s in zip(found, named):
            pools[s or ("test" if is_test(serial(p.messages)) else "train")].append(p)
        train = {checksum(p.messages): p.id for p in pools["train"]}
        for p in pools["test"]:
            if checksum(p.messages) in train:
                raise ValueError(
                    f"the test problem {p.id!r} has the prompt of the train problem {train[checksum(p.messages)]!r}; the splits must share none"
                )
        return pools

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems; the same arguments give the same ones. Raises ValueError when a list has not so many."""
        check_problems_asked(n, split, seed)
        if self.source:
            return self.read(self.source(n, split, seed))
        pool, other = self.pools[split], self.pools["train" if split == "test" else "test"]
        if len(pool) < n:
            raise ValueError(
                f"the task {self.name!r} has {len(pool)} {split} problems (and {len(other)} of the other split), asked for {n}. Give it more, ask "
                f"for fewer ({'evaluate(n=...)' if split == 'test' else 'SDPOConfig(generation_batch_size=...), which is attempts, num_generations a problem'}), "
                'or say in each problem which "split" it is of'
            )
        return random.Random(f"{self.name}/{seed}/{split}").sample(pool, n)

    def shown(self, problem: Problem) -> Problem | dict[str, Any]:
        """The problem as it was given."""
        if self.dictionaries is None:  # a function's, and attempts older than this object
            self.problems(1)
        return problem.data if self.dictionaries else problem

    def judge(self, problem: Problem, completion: str) -> Verdict:
        return verdict(self.scorer(self.shown(problem), completion))

    def __repr__(self) -> str:
        have = (
            "problems by a function"
            if self.source
            else ", ".join(f"{len(pool)} {split}" for split, pool in self.pools.items())
        )
        return f"task_from_function({self.name!r}: {have})"


class RewardTask(FunctionTask):
    """The same of TRL's reward functions, which see a whole batch at once."""

    def judge(self, problem: Problem, completion: str) -> Verdict:
        return self.judge_many([problem], [completion])[0]

    def judge_many(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        return self.scorer(problems, [self.shown(p) for p in problems], completions)


def as_problem(row: dict[str, Any], place: int, name: str) -> Problem:
    """The problem that a dictionary describes; its `data` is that dictionary itself."""
    chat = next((row[key] for key in ("prompt", "messages", "question") if key in row), None)
    chat = [{"role": "user", "content": chat}] if isinstance(chat, str) else chat
    if chat is None:
        raise ValueError(
            f"problem {place} has neither 'prompt', 'messages' nor 'question'; it has {', '.join(map(repr, row)) or 'nothing'}"
        )
    if (
        not isinstance(chat, list)
        or not chat
        or not all(
            isinstance(m, dict)
            and isinstance(m.get("role"), str)
            and isinstance(m.get("content"), str)
            for m in chat
        )
    ):
        raise TypeError(
            f"the prompt of problem {place} must be a string or a list of messages with a role and a content, both strings; got {shown(chat)}"
        )
    if chat[-1]["role"] != "user":
        raise ValueError(
            f"the chat of problem {place} ends with the role {chat[-1]['role']!r}; it must end with what the user says, without the answer"
        )
    if not chat[-1]["content"].strip():
        raise ValueError(
            f"the prompt of problem {place} is empty, it must say something; got {shown(chat[-1]['content'])}"
        )
    given = row.get("id")
    if given is not None and (isinstance(given, bool) or not isinstance(given, (str, int))):
        raise TypeError(
            f"the id of problem {place} must be a string or a whole number, got {shown(given)}"
        )
    return Problem(f"{name}-{checksum(chat)[:12]}" if given is None else str(given), chat, row)


def serial(messages: list[dict[str, str]]) -> str:
    return json.dumps([[m["role"], m["content"]] for m in messages])


def checksum(messages: list[dict[str, str]]) -> str:
    return hashlib.sha256(serial(messages).encode()).hexdigest()


def verdict(value: Any) -> Verdict:
    """As `as_verdict`; a number alone (or a truth value) is a reward without a word."""
    return (
        Verdict(check_reward("reward", plain(value)))
        if isinstance(value, numbers.Real)
        else as_verdict(value)
    )


def plain(number: Any) -> int | float:
    """Python's own number of a number or a truth value."""
    return int(number) if isinstance(number, numbers.Integral) else float(number)


class Rewards:
    """TRL's reward functions, unchanged, as a judge of a batch.

    Each is called as TRL's GRPOTrainer calls it: `prompts` and `completions` (chats: lists of messages), `completion_ids`,
    `trainer_state`, `log_extra`, `log_metric`, and a list for every key of the problems' data, None where a problem lacks it; async ones too.
    A reward of None (or nan, as in TRL) does not count in the sum. An attempt that all answer with None, which TRL leaves out of the group's
    baseline, has reward 0 and no feedback here, and is counted in `unscorable`; the first one is a warning.

    What is not TRL's: a task knows no trainer, so `trainer_state` is None and logging does nothing; and it sees text, so
    `completion_ids` are those of the text tokenised again, without the end token. A function that names `completion_ids`
    in its signature is refused without a tokenizer.
    """

    def __init__(
        self,
        functions: Callable | list[Callable],
        weights: list[float] | None,
        feedback: Callable | None,
        tokenizer: Any,
    ) -> None:
        self.functions = list(functions) if isinstance(functions, (list, tuple)) else [functions]
        self.weights = [1.0] * len(self.functions) if weights is None else list(weights)
        self.feedback, self.tokenizer, self.unscorable = feedback, tokenizer, 0
        if not self.functions:
            raise ValueError("reward_funcs must hold at least one function")
        if len(self.weights) != len(self.functions):
            raise ValueError(
                f"reward_weights must have one number for each of the {len(self.functions)} reward functions, got {len(self.weights)}"
            )
        for w in self.weights:
            check_range("a reward weight", w, float, -1e6, 1e6)
        for f in self.functions:
            if not callable(f):
                raise TypeError(
                    f"a reward function must be a function, got {type(f).__name__} {f!r}; reward models are not supported"
                )
            if tokenizer is None and "completion_ids" in inspect.signature(f).parameters:
                raise ValueError(
                    f"the reward function {title(f)} reads completion_ids; pass tokenizer=, the one of the model"
                )

    def __call__(
        self, problems: list[Problem], shown: list[Any], completions: list[str]
    ) -> list[Verdict]:
        keys = {
            k: None
            for p in problems
            for k in p.data
            if k not in ("prompt", "completion", "completion_ids")
        }  # in order, as a data set's columns
        columns = {k: [p.data.get(k) for p in problems] for k in keys} | dict(
            prompts=[p.messages for p in problems],
            completions=[[{"role": "assistant", "content": c}] for c in completions],
            completion_ids=[
                list(self.tokenizer(c, add_special_tokens=False).input_ids)
                if self.tokenizer
                else None
                for c in completions
            ],
            trainer_state=None,
            log_extra=lambda *_: None,
            log_metric=lambda *_: None,
        )
        rewards = [
            self.ask(f, columns, len(problems)) for f in self.functions
        ]  # functions x attempts
        found = []
        for i, (problem, completion) in enumerate(zip(shown, completions)):
            parts = [w * r[i] for w, r in zip(self.weights, rewards) if r[i] is not None]
            if not parts:
                self.unscorable += 1
                if self.unscorable == 1:
                    warnings.warn(
                        f"every reward function answered None for problem {problems[i].id!r}; such attempts have reward 0 and no feedback",
                        stacklevel=2,
                    )
            found.append(
                Verdict(
                    sum(parts),
                    self.feedback(problem, completion) if self.feedback and parts else "",
                )
            )
        return found

    def ask(self, function: Callable, columns: dict[str, list], n: int) -> list[float | None]:
        """A reward for each of the `n` attempts, None where it does not count. Raises TypeError or ValueError, with the function and the value, for
        anything but a list (or a tensor, or an array) of `n` numbers from -1e6 to 1e6 and Nones."""
        values = function(**columns)
        if inspect.isawaitable(values):  # in a thread of its own: a notebook's has a loop already
            with ThreadPoolExecutor(1) as pool:
                values = pool.submit(asyncio.run, wait_for(values)).result()
        if (
            isinstance(values, (str, bytes, dict))
            or not isinstance(values, Iterable)
            or getattr(values, "ndim", 1) == 0
        ):
            raise TypeError(
                f"the reward function {title(function)} must return a list with one reward for each completion, got {shown(values)} ({type(values).__name__})"
            )
        values = list(values)
        if len(values) != n:
            raise ValueError(
                f"the reward function {title(function)} returned {len(values)} rewards for {n} completions; it must return one each"
            )
        return [reward_of(function, v) for v in values]


def reward_of(function: Callable, value: Any) -> float | None:
    """One reward as a float; None for None and for nan."""
    number = value.item() if getattr(value, "ndim", None) == 0 else value  # torch's and numpy's
    if number is None:
        return None
    name = f"a reward of the reward function {title(function)}"
    if not isinstance(number, numbers.Real):
        raise TypeError(
            f"{name} must be a number, or None where it does not count, got {shown(value)} ({type(value).__name__})"
        )
    return None if number != number else check_reward(name, plain(number))


async def wait_for(values: Any) -> Any:
    return await values


def title(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


class JudgeError(RuntimeError):
    """A judge raised, or took too long. The message names the problem and the completion; the exception itself is `__cause__`."""


#: Calls of a judge that may hang at once before `Guard` gives up, whatever `on_error` says: each keeps a thread and what it holds.
MOST_HANGING = 8


class Guard:
    """Any task, with a judge that fails in a way that helps: `Guard(task)` or `Guard(task, on_error="zero", seconds=10)`.

    on_error  "raise"  JudgeError, which names the problem and the completion and keeps the judge's exception attached
              "zero"   the attempt has reward 0 and no feedback, and the run goes on. `failures` counts such attempts; a warning comes with the
                       first and whenever there are ten times as many

    seconds   wall-clock time, 0.01 to 86400, that one call of `judge`, or of `judge_many` for a whole batch, may take; a call that takes longer has
              failed with a TimeoutError. None: no limit, and a judge that hangs hangs the run

    A `judge_many` that fails is asked again for each attempt alone, to find the one at fault. Everything else is the task's.

    What the time limit cannot do: Python has no way to stop a thread, so a call that hangs is left behind. It goes on in the background, with
    whatever it holds, and ends with the process at the latest; after `MOST_HANGING` such calls the guard raises, on_error="zero" or not. Each call is
    in a thread of its own, where a judge may not use signals. A judge that waits in C code without letting other threads run is not noticed.
    Code that a model wrote belongs in a process that can be killed: `sdpo_lab.tasks.sandbox`.
    """

    def __init__(self, task: Task, on_error: str = "raise", seconds: float | None = None) -> None:
        check_choice("on_error", on_error, ("raise", "zero"))
        check_task(task)
        self.seconds = (
            None if seconds is None else check_range("seconds", seconds, float, 0.01, 86400)
        )
        self.task, self.on_error, self.failures, self.lock = task, on_error, 0, threading.Lock()
        self.hanging: list[threading.Thread] = []  # calls that took too long and have not ended

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        return self.task.problems(n, split=split, seed=seed)

    def judge(self, problem: Problem, completion: str) -> Verdict:
        return self.judge_many([problem], [completion])[0]

    def judge_many(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        together = None
        if hasattr(self.task, "judge_many") and len(problems) > 1:
            try:
                return self.in_time(problems, completions)
            except Exception as error:  # whatever a judge may raise; an interrupt is none
                together = error
        found = [self.judge_one(p, c) for p, c in zip(problems, completions)]
        if together and self.on_error == "raise":
            raise JudgeError(
                f"judge_many() failed on {len(problems)} attempts together, though on none of them alone: {said(together)}"
            ) from together
        return found

    def judge_one(self, problem: Problem, completion: str) -> Verdict:
        try:
            return self.in_time([problem], [completion])[0]
        except Exception as error:
            return self.failed(problem, completion, error)

    def in_time(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        """`judge_all`, in a thread of its own where there is a time limit."""
        if self.seconds is None:
            return judge_all(self.task, problems, completions)
        with self.lock:
            self.hanging = [t for t in self.hanging if t.is_alive()]
            if len(self.hanging) >= MOST_HANGING:
                raise TimeoutError(
                    f"{len(self.hanging)} calls of the judge hang already, so no other one was started"
                )
        outcome: list[Any] = []

        def call() -> None:
            try:
                outcome.append(judge_all(self.task, problems, completions))
            except (
                BaseException
            ) as error:  # raised again where the run waits, an interrupt or an exit too
                outcome.append(error)

        thread = threading.Thread(target=call, name="sdpo_lab judge", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if not outcome:
            with self.lock:
                self.hanging.append(thread)
            raise TimeoutError(
                f"the judge was not done after seconds={self.seconds:g}; it goes on in the background"
            )
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def failed(self, problem: Problem, completion: str, error: Exception) -> Verdict:
        text = (
            completion
            if len(completion) <= 200
            else completion[:200] + f"... ({len(completion)} characters)"
        )
        what = f"the judge failed on problem {problem.id!r}, completion {text!r}: {said(error)}"
        if self.on_error == "raise":
            raise JudgeError(
                what + '. Make the judge return a reward for every text, or give on_error="zero"'
            ) from error
        if sum(t.is_alive() for t in self.hanging) >= MOST_HANGING:
            raise JudgeError(
                f"{MOST_HANGING} calls of the judge hang at once, so no more are started; {what}. Give the judge a time limit of its own"
            ) from error
        with self.lock:
            self.failures += 1
            count = self.failures
        if str(count).strip("0") == "1":
            warnings.warn(
                f"{count} attempt{'s' * (count > 1)} could not be judged and had reward 0; the last: {what}",
                stacklevel=2,
            )
        return Verdict(0.0)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "task":
            raise AttributeError(name)
        return getattr(self.task, name)

    def __repr__(self) -> str:
        settings = ("" if self.on_error == "raise" else ", on_error='zero'") + (
            "" if self.seconds is None else f", seconds={self.seconds:g}"
        )
        return f"Guard({self.task!r}{settings})" if settings else repr(self.task)


def said(error: BaseException) -> str:
    """What an exception says, on one line that a terminal may show: it may quote what a model wrote."""
    text = printable(str(error))
    return f"{type(error).__name__}: " + (
        text if len(text) <= 500 else f"{text[:500]}... ({len(text)} characters)"
    )
