"""What a request leaves open, and how somebody happens to mean it: the small worlds of `tinycode`
and `followup`; and what all shipped tasks share.

A request of some kind leaves a few questions open (inclusive or exclusive? a comma or a line
each?), each with two to four readings, the usual one first. A *convention* fixes a reading of every
question of every kind. As in `toolcall`, pre-training documents draw theirs from `PRIOR`, so a bare
request tells no more than the prior, and a task fixes one convention of unusual readings.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdpo_lab.core.task import Problem, check_problems_asked

#: Probability of the first to fourth reading of a question; of fewer readings, in proportion.
PRIOR = (0.72, 0.16, 0.08, 0.04)

#: {kind of request: {question: reading}}
Convention = dict[str, dict[str, str]]


def combinations(questions: Mapping[str, Sequence[str]]) -> list[tuple[float, dict[str, str]]]:
    """All (prior probability, {question: reading}) of one kind of request; they sum to one."""
    pairs = []
    for readings in itertools.product(*questions.values()):
        p = math.prod(
            PRIOR[list(options).index(r)] / sum(PRIOR[: len(options)])
            for options, r in zip(questions.values(), readings)
        )
        pairs.append((p, dict(zip(questions, readings))))
    return pairs


def draw_from_prior(questions: Mapping[str, Sequence[str]], rng: random.Random) -> dict[str, str]:
    """Readings as a pre-training document draws them."""
    return {q: rng.choices(options, PRIOR[: len(options)])[0] for q, options in questions.items()}


def weights_near(probabilities: Sequence[float], target: float) -> list[float]:
    """How likely a combination of each prior probability is to be drawn: a normal density around
    `target` on a log scale, one factor 1.5 = one standard deviation."""
    return [
        math.exp(-0.5 * (math.log(p / target) / math.log(1.5)) ** 2) + 1e-12 for p in probabilities
    ]


def draw_convention(
    kinds: Mapping[str, Mapping[str, Sequence[str]]], name: str, seed: int, base_accuracy: float
) -> Convention:
    """The convention of one task: of every kind, readings whose probability under the prior is near
    `base_accuracy`, so that a learner who knows the prior alone is right about that often.

    `toolcall.world.draw_convention` looks alike but draws in another way, which goldens hold.
    """
    rng, convention = random.Random(f"{name}/convention/{seed}"), {}
    for kind, questions in kinds.items():
        probabilities, readings = zip(*combinations(questions))
        weights = weights_near(probabilities, base_accuracy)
        convention[kind] = rng.choices(readings, weights)[0]
    return convention


def is_test(text: str) -> bool:
    """Every fifth prompt, by its own checksum, is a test problem: the splits never share one."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 5 == 0


def checksum_id(name: str, text: str) -> str:
    """The id of a problem of task `name`, by the checksum of its text."""
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def problem_of(name: str, text: str, data: dict[str, Any]) -> Problem:
    """The problem of task `name` that asks `text`."""
    return Problem(checksum_id(name, text), [{"role": "user", "content": text}], data)


def draw_different(
    draw: Callable[[], Problem], n: int, what: str, patience: int = 500
) -> list[Problem]:
    """`n` problems of different id from `draw()`. Raises ValueError when there are not so many,
    which is after `patience` draws in a row without a new one."""
    problems: dict[str, Problem] = {}
    repeats = 0
    while len(problems) < n:
        problem = draw()
        repeats = repeats + 1 if problem.id in problems else 0
        if repeats > patience:  # nearly all there are have been drawn
            raise ValueError(
                f"this task has only about {len(problems)} different {what} problems; asked for {n}"
            )
        problems[problem.id] = problem
    return list(problems.values())


class DrawnTask:
    """A task whose problems are drawn one at a time: what the shipped worlds have in common.

    name      of the task; begins the seeds of its draws
    dials     its keyword arguments, as they stand in records
    patience  draws in a row without a new problem before it gives up
    """

    name: str
    dials: dict[str, Any]
    patience = 500

    def draw(self, split: str, rng: random.Random) -> Problem:
        """One problem of `split`."""
        raise NotImplementedError

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems; the same arguments always give the same ones, and no prompt is in
        both splits. Raises ValueError when there are not so many."""
        check_problems_asked(n, split, seed)
        rng = random.Random(f"{self.name}/{seed}/{split}")
        return draw_different(lambda: self.draw(split, rng), n, split, self.patience)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.dials.items())})"
