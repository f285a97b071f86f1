"""A Rollout is one attempt. They are sampled in groups, judged, and keep what became of them.

`core.sampling` has the decode loop below `rollout`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.checks import (
    check_choice,
    check_kind,
    check_model,
    check_prompts,
    check_range,
    check_reward,
    check_text,
    short_repr,
)
from sdpo_lab.core.sampling import SamplingParams, noise_key, sample
from sdpo_lab.core.task import Problem, Task, check_problems, judge_all

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Rollout:
    """One attempt at one problem, and what came of it."""

    problem: Problem
    index: int  #: its place in the group
    text: str  #: decoded, without special tokens: what the judge reads
    completion_ids: list[int]  #: as sampled, end token included; both roles score exactly these
    #: mean entropy of softmax(logits / T) (T = 1 where greedy), before top_p, nats
    entropy: float = float("nan")
    truncated: bool = False  #: no end token within the allowed length

    # set when it has been judged
    reward: float | None = None
    feedback: str = ""

    # set in a step: what its teacher was shown, and whether it took part
    teacher_messages: list[dict[str, str]] = field(default_factory=list)  #: the teacher's chat
    #: the sibling's answer, whole, even where the chat holds a shortened one; "" = none
    shown_solution: str = ""
    shown_feedback: str = ""  #: the environment's text, whole likewise; "" = none
    shown_attempt: str = ""  #: its own text in it (`include_own_attempt`)
    demonstration: int | None = None  #: index of the sibling whose answer was shown
    active: bool = False  #: did it take part in the update
    why: str = ""  #: the reason in words when it did not

    @property
    def shown(self) -> bool:
        """Does its teacher see more than the question?"""
        return bool(self.shown_solution or self.shown_feedback)

    def succeeded(self, threshold: float) -> bool:
        """Was it judged, with at least this reward?"""
        return self.reward is not None and self.reward >= threshold

    def undecided(self) -> Rollout:
        """A copy without what an earlier step decided of it; a verdict stays."""
        return replace(
            self,
            teacher_messages=[],
            shown_solution="",
            shown_feedback="",
            shown_attempt="",
            demonstration=None,
            active=False,
            why="",
        )


# -- made -----------------------------------------------------------------------------------------


def rollout(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Iterable[Problem],
    num_generations: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    *,
    step: int = 0,
    max_completion_length: int = 256,
    top_p: float = 1.0,
    batch_size: int = 4096,
    bf16: bool = False,
) -> list[Rollout]:
    """`num_generations` attempts at each problem, in problem order, not judged.

    temperature  0 is greedy
    batch_size   attempts sampled together, at most: changes memory and speed, but no token
    bf16         compute under autocast, as a step with `SDPOConfig.bf16` scores them

    Raises TypeError or ValueError for an argument that is out of its range.
    """
    check_model(model, tokenizer)
    problems = check_problems(problems)
    num_generations = check_range("num_generations", num_generations, int, 1, 4096)
    temperature = check_range("temperature", temperature, float, 0, 100)
    seed = check_range("seed", seed, int, 0, 2**63 - 1)
    step = check_range("step", step, int, -(2**31), 2**31)
    length = check_range("max_completion_length", max_completion_length, int, 1, 131072)
    top_p = check_range("top_p", top_p, float, 0.01, 1)
    batch_size = check_range("batch_size", batch_size, int, 1)
    bf16 = check_choice("bf16", bf16, (False, True))
    return sample_rollouts(
        model,
        tokenizer,
        problems,
        SamplingParams(temperature, top_p, length, bf16),
        num_generations=num_generations,
        batch_size=batch_size,
        seed=seed,
        step=step,
    )


def sample_rollouts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    params: SamplingParams,
    *,
    num_generations: int,
    batch_size: int,
    seed: int,
    step: int,
) -> list[Rollout]:
    """`rollout` with arguments that are known to be right."""
    prompts = [encode_chat(tokenizer, problem.messages) for problem in problems]
    check_prompts(prompts, model)
    places = range(num_generations)
    keys = [[noise_key(seed, step, problem.id, place) for place in places] for problem in problems]
    groups_at_once = max(1, batch_size // num_generations)
    completions = []
    for start in range(0, len(problems), groups_at_once):
        part = slice(start, start + groups_at_once)
        completions += sample(model, tokenizer, prompts[part], keys[part], params)
    whose = itertools.product(problems, places)
    return [
        Rollout(problem, place, c.text, c.ids, entropy=c.entropy, truncated=c.truncated)
        for (problem, place), c in zip(whose, completions)
    ]


# -- judged and grouped ---------------------------------------------------------------------------


def judge_rollouts(task: Task, rollouts: list[Rollout]) -> list[Rollout]:
    """Fill in reward and feedback of every rollout that has no reward."""
    fresh = [r for r in rollouts if r.reward is None]
    verdicts = judge_all(task, [r.problem for r in fresh], [r.text for r in fresh])
    for r, verdict in zip(fresh, verdicts):
        r.reward = float(verdict.reward)
        r.feedback = verdict.feedback
    return rollouts


def group_rollouts(rollouts: list[Rollout]) -> list[list[Rollout]]:
    """Attempts at the same problem, in order.

    Raises ValueError when a group is torn apart or an attempt is there twice.
    """
    groups = [list(g) for _, g in itertools.groupby(rollouts, key=lambda r: r.problem.id)]
    problem_ids = {g[0].problem.id for g in groups}
    if not groups or len(problem_ids) < len(groups):
        raise ValueError(
            "rollouts must be one or more whole groups, attempts at the same problem side by side; "
            f"got {len(rollouts)}"
        )
    for g in groups:
        if len({r.index for r in g}) < len(g):
            raise ValueError(
                f"two rollouts of problem {g[0].problem.id!r} have the same index; number the "
                "attempts at a problem from 0, and give every problem an id of its own"
            )
    return groups


# -- given by the user ----------------------------------------------------------------------------


def check_rollouts(rollouts: Any, vocabulary: int) -> list[Rollout]:
    """The attempts, when a step can use them.

    Raises TypeError unless they are a list of Rollout; TypeError or ValueError for one whose
    problem is not a Problem, whose texts are not strings, whose ids are not a list of Python's
    whole numbers from 0 to `vocabulary` - 1, whose index is not a whole number from 0 upwards,
    whose entropy is not a number, or whose reward is neither None nor as of `check_reward`.
    """
    if not isinstance(rollouts, list) or not all(isinstance(r, Rollout) for r in rollouts):
        raise TypeError(
            "rollouts must be a list of Rollout, as lab.rollout gives it, got "
            f"{short_repr(rollouts)}"
        )
    check_problems([r.problem for r in rollouts], "rollouts")
    for r in rollouts:
        problem = f"problem {short_repr(r.problem.id)}"
        check_range(f"index of a rollout of {problem}", r.index, int, 0)
        whose = f"of rollout {r.index} of {problem}"
        check_text(f"text {whose}", r.text, "it is the decoded completion, without special tokens")
        check_text(f"feedback {whose}", r.feedback, "'' when there is none")
        number = "a number, nan when it is not known"
        check_kind(f"entropy {whose}", r.entropy, (int, float), number)
        check_choice(f"truncated {whose}", r.truncated, (False, True))
        check_completion_ids(f"completion_ids {whose}", r.completion_ids, vocabulary)
        if r.reward is not None:
            check_reward(f"reward {whose}", r.reward)
    return rollouts


def check_completion_ids(name: str, ids: Any, vocabulary: int) -> None:
    fix = ".tolist() makes one of a tensor or an array"
    check_kind(name, ids, list, f"a list of token ids; {fix}")
    for i in ids:
        if type(i) is not int:
            raise TypeError(
                f"{name} must be Python's whole numbers, one has the type {type(i).__name__}: "
                f"{short_repr(i)}; .tolist() makes them of a tensor or an array"
            )
        if not 0 <= i < vocabulary:
            raise ValueError(
                f"{name} must be from 0 to {vocabulary - 1}, the model's vocabulary; got "
                f"{short_repr(i)}. Sample them with this model and its tokenizer"
            )
