"""TRL's reward functions, unchanged, as a judge of a batch."""

from __future__ import annotations

import asyncio
import inspect
import numbers
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sdpo_lab.core.checks import check_range, check_reward, short_repr
from sdpo_lab.core.task import Problem, Verdict

#: Keys of the problems' data that TRL gives under these names itself.
OWN_COLUMNS = ("prompt", "completion", "completion_ids")


class Rewards:
    """TRL's reward functions, unchanged, as a judge of a batch.

    Each is called as TRL's GRPOTrainer calls it: `prompts` and `completions` (chats: lists of
    messages), `completion_ids`, `trainer_state`, `log_extra`, `log_metric`, and a list for every
    key of the problems' data, None where a problem lacks it; async ones too. A reward of None (or
    nan, as in TRL) does not count in the sum. An attempt that all answer with None, which TRL
    leaves out of the group's baseline, has reward 0 and no feedback here, and is counted in
    `unscorable`; the first one is a warning.

    What is not TRL's: a task knows no trainer, so `trainer_state` is None and logging does nothing;
    and it sees text, so `completion_ids` are those of the text tokenised again, without the end
    token. A function that names `completion_ids` in its signature is refused without a tokenizer.
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
                f"reward_weights must have one number for each of the {len(self.functions)} reward "
                f"functions, got {len(self.weights)}"
            )
        for w in self.weights:
            check_range("a reward weight", w, float, -1e6, 1e6)
        for f in self.functions:
            if not callable(f):
                raise TypeError(
                    f"a reward function must be a function, got {type(f).__name__} {f!r}; "
                    "reward models are not supported"
                )
            if tokenizer is None and "completion_ids" in inspect.signature(f).parameters:
                raise ValueError(
                    f"the reward function {title(f)} reads completion_ids; "
                    "pass tokenizer=, the one of the model"
                )

    def __call__(
        self, problems: list[Problem], given: list[Any], completions: list[str]
    ) -> list[Verdict]:
        """Verdicts in order; `given` are the problems as `feedback` is to get them."""
        columns = self.columns(problems, completions)
        # (functions, attempts)
        rewards = [self.ask(f, columns, len(problems)) for f in self.functions]
        verdicts = []
        for i, completion in enumerate(completions):
            parts = [w * r[i] for w, r in zip(self.weights, rewards) if r[i] is not None]
            if not parts:
                self.count_unscorable(problems[i])
            feedback = self.feedback(given[i], completion) if self.feedback and parts else ""
            verdicts.append(Verdict(sum(parts), feedback))
        return verdicts

    def columns(self, problems: list[Problem], completions: list[str]) -> dict[str, Any]:
        """The keyword arguments of a reward function, as TRL makes them of a data set's columns."""
        keys = {k: None for p in problems for k in p.data if k not in OWN_COLUMNS}  # in order
        columns = {k: [p.data.get(k) for p in problems] for k in keys}
        ids = [
            list(self.tokenizer(c, add_special_tokens=False).input_ids) if self.tokenizer else None
            for c in completions
        ]
        return columns | dict(
            prompts=[p.messages for p in problems],
            completions=[[{"role": "assistant", "content": c}] for c in completions],
            completion_ids=ids,
            trainer_state=None,
            log_extra=lambda *_: None,
            log_metric=lambda *_: None,
        )

    def count_unscorable(self, problem: Problem) -> None:
        self.unscorable += 1
        if self.unscorable == 1:
            warnings.warn(
                f"every reward function answered None for problem {problem.id!r}; "
                "such attempts have reward 0 and no feedback",
                stacklevel=3,
            )

    def ask(self, function: Callable, columns: dict[str, Any], n: int) -> list[float | None]:
        """A reward for each of the `n` attempts, None where it does not count.

        Raises TypeError or ValueError, with the function and the value, for anything but a list (or
        a tensor, or an array) of `n` numbers from -1e6 to 1e6 and Nones.
        """
        values = function(**columns)
        if inspect.isawaitable(values):  # in a thread of its own: a notebook's has a loop already
            with ThreadPoolExecutor(1) as pool:
                values = pool.submit(asyncio.run, wait_for(values)).result()
        one_value = isinstance(values, (str, bytes, dict)) or getattr(values, "ndim", 1) == 0
        if one_value or not isinstance(values, Iterable):
            raise TypeError(
                f"the reward function {title(function)} must return a list with one reward for "
                f"each completion, got {short_repr(values)} ({type(values).__name__})"
            )
        values = list(values)
        if len(values) != n:
            raise ValueError(
                f"the reward function {title(function)} returned {len(values)} rewards for {n} "
                "completions; it must return one each"
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
            f"{name} must be a number, or None where it does not count, "
            f"got {short_repr(value)} ({type(value).__name__})"
        )
    return None if number != number else check_reward(name, python_number(number))


def python_number(number: Any) -> int | float:
    """Python's own number of a number or a truth value, numpy's too."""
    return int(number) if isinstance(number, numbers.Integral) else float(number)


async def wait_for(values: Any) -> Any:
    return await values


def title(function: Callable) -> str:
    """What a function is called in a message."""
    return getattr(function, "__name__", type(function).__name__)
