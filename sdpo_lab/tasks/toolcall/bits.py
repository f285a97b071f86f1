"""How much an environment's answer tells about the convention, in bits, counted over every
convention there could be.

Exact for one call an attempt: a tool has at most 4^3 name combinations, each with its prior
probability.
"""

from __future__ import annotations

import math
from typing import Any

from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.toolcall.judge import find_errors, say
from sdpo_lab.tasks.toolcall.world import BY_NAME, Convention, combinations, names_of


def answers(problem: Problem, completion: str, feedback: int | None) -> dict[str, float]:
    """{what the environment would say: prior probability} for one attempt.

    `feedback` None is the bare reward, 0 to 3 the dial.
    """
    if len(problem.data["calls"]) != 1:
        raise ValueError(
            "bits are counted for problems with one call; this one asks for "
            f"{len(problem.data['calls'])}. Use load_task('toolcall', calls=1)"
        )
    tool = BY_NAME[problem.data["calls"][0]["tool"]]
    probabilities: dict[str, float] = {}
    for p, ranks in combinations(tool):
        said = answer(problem, {tool.name: names_of(tool, ranks)}, completion, feedback)
        probabilities[said] = probabilities.get(said, 0.0) + p
    return probabilities


def answer(problem: Problem, convention: Convention, completion: str, feedback: int | None) -> str:
    """What the environment says of an attempt when `convention` is the right one."""
    errors, _ = find_errors(problem.data["calls"], convention, completion)
    if not errors:
        return "right"
    return "wrong" + (say(errors[0], feedback) if feedback else "")


def expected_bits(problem: Problem, completion: str, feedback: int | None) -> float:
    """Mean information of the answer about the convention: its entropy, since the answer follows
    from attempt and convention."""
    return -sum(p * math.log2(p) for p in answers(problem, completion, feedback).values() if p > 0)


def bits(task: Any, problem: Problem, completion: str, feedback: int | None) -> float:
    """Information of the answer this task really gives to this attempt: -log2 of its probability
    under the prior.

    Infinite for a convention the prior rules out (novelties other than "seen").
    """
    said = answer(problem, task.convention, completion, feedback)
    probability = answers(problem, completion, feedback).get(said, 0.0)
    return -math.log2(probability) if probability > 0 else math.inf
