"""What a request leaves open, and how somebody happens to mean it: the small worlds of `tinycode` and `followup`.

A request of some kind leaves a few questions open (inclusive or exclusive? a comma or a line each?), each with two to four readings, the
usual one first. A *convention* fixes a reading of every question of every kind. As in `toolcall`, pre-training documents draw
theirs from `PRIOR`, so a bare request tells no more than the prior, and a task fixes one convention of unusual readings.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

#: Probability of the first, second, third and fourth reading of a question; of fewer, in proportion.
PRIOR = (0.72, 0.16, 0.08, 0.04)

#: {kind of request: {question: reading}}
Convention = dict[str, dict[str, str]]


def combinations(questions: Mapping[str, Sequence[str]]) -> list[tuple[float, dict[str, str]]]:
    """All (prior probability, {question: reading}) of one kind of request; the probabilities sum to one."""
    found = []
    for readings in itertools.product(*questions.values()):
        p = math.prod(
            PRIOR[list(options).index(r)] / sum(PRIOR[: len(options)])
            for options, r in zip(questions.values(), readings)
        )
        found.append((p, dict(zip(questions, readings))))
    return found


def draw_from_prior(questions: Mapping[str, Sequence[str]], rng: random.Random) -> dict[str, str]:
    """Readings as a pre-training document draws them."""
    return {q: rng.choices(options, PRIOR[: len(options)])[0] for q, options in questions.items()}


def draw_convention(
    kinds: Mapping[str, Mapping[str, Sequence[str]]], name: str, seed: int, base_accuracy: float
) -> Convention:
    """The convention of one task: of every kind, readings whose probability under the prior is near `base_accuracy` (on a log scale, one
    factor 1.5 = one standard deviation), so that a learner who knows the prior alone is right about that often."""
    rng, convention = random.Random(f"{name}/convention/{seed}"), {}
    for kind, questions in kinds.items():
        every = combinations(questions)
        weights = [
            math.exp(-0.5 * (math.log(p / base_accuracy) / math.log(1.5)) ** 2) + 1e-12
            for p, _ in every
        ]
        convention[kind] = rng.choices([readings for _, readings in every], weights)[0]
    return convention


def is_test(text: str) -> bool:
    """Every fifth prompt, by its own checksum, is a test problem, so the splits share none whatever the seed."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 5 == 0


def draw_different(draw: Any, n: int, what: str) -> list[Any]:
    """`n` problems of different id from `draw()`. Raises ValueError when there are not so many."""
    found: dict[str, Any] = {}
    repeats = 0
    while len(found) < n:
        problem = draw()
        repeats = repeats + 1 if problem.id in found else 0
        if repeats > 500:  # nearly all there are have been drawn
            raise ValueError(
                f"this task has only about {len(found)} different {what} problems; asked for {n}"
            )
        found[problem.id] = problem
    return list(found.values())
