"""Greedy questions against exact planning."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from sdpo_lab.tasks.toolcall.oracle import (
    answer_table,
    chain,
)
from sdpo_lab.tasks.toolcall.world import BY_NAME, combinations, names_of
from tests.tasks.toolcall.oracle.common import VALUES, ask, call_of, task_with


def planner(tool: str, level: int, conventions: list[tuple[float, tuple]], goal: str):
    """(best, greedy): functions of n, the largest expected value of n attempts and that of the
    greedy learner, by dynamic programming over everything that can be known.

    goal "final": accuracy of the most probable call after n attempts; "sum": how many of the n
    attempts are right. Attempts are every call of the tool's names in both orders, shorter ones,
    and each with a name twice over.
    """
    arguments, problem = BY_NAME[tool].arguments, ask(tool)
    texts = []
    for names in itertools.product(*(a.names for a in arguments)):
        pairs = [f"{n}={VALUES[tool][a.role]!r}" for a, n in zip(arguments, names)]
        texts += [
            f"{tool}({', '.join(some)})"
            for k in range(len(pairs) + 1)
            for some in itertools.permutations(pairs, k)
        ]
        swapped = [VALUES[tool][a.role] for a in arguments[::-1]]
        texts.append(f"{tool}({', '.join(f'{n}={v!r}' for v, n in zip(swapped, names))})")
    texts = list(dict.fromkeys(texts))
    judges = [task_with({tool: names_of(BY_NAME[tool], r)}, level) for _, r in conventions]
    prior = [p for p, _ in conventions]
    table = {
        tuple((v.reward, v.feedback) for v in (j.judge(problem, t) for j in judges)) for t in texts
    }  # those answered alike are one
    own = [
        tuple((v.reward, v.feedback) for v in (j.judge(problem, call_of(tool, r)) for j in judges))
        for _, r in conventions
    ]

    def split(left: frozenset, answers: tuple) -> list[tuple[frozenset, bool]]:
        parts: dict = {}
        for i in left:
            parts.setdefault(answers[i], set()).add(i)
        return [(frozenset(part), answer[0] == 1) for answer, part in parts.items()]

    def value(n: int, left: frozenset, greedy: bool) -> float:
        """Expected value times the probability of being here."""
        if len(left) == 1:
            return prior[min(left)] * (1 if goal == "final" else n)
        if n == 0:
            return max(prior[i] for i in left) if goal == "final" else 0.0
        choices = [own[max(sorted(left), key=lambda i: prior[i])]] if greedy else table
        return max(
            sum(
                cached(n - 1, part, greedy)
                + (sum(prior[i] for i in part) if right and goal == "sum" else 0.0)
                for part, right in split(left, answers)
            )
            for answers in choices
        )

    cached = functools.cache(value)
    everything = frozenset(range(len(prior)))
    return tuple(
        lambda n, greedy=greedy: cached(n, everything, greedy) / sum(prior)
        for greedy in (False, True)
    )


SMALL = [
    c for c in combinations(BY_NAME["weather"]) if max(c[1]) < 3
]  # three names an argument: seven conventions
FULL = combinations(BY_NAME["weather"])


@pytest.mark.parametrize("goal", ["final", "sum"])
@pytest.mark.parametrize("level", range(4))
def test_no_plan_is_worse_than_greed_and_greed_looks_one_step_ahead(level, goal):
    best, greedy = planner("weather", level, SMALL, goal)
    for n in range(6):
        assert best(n) >= greedy(n) - 1e-12
    first = 1 if goal == "sum" else 0  # with no later attempt to learn for, greedy is best
    assert best(first) == pytest.approx(greedy(first))
    if level == 2 and goal == "final":
        assert [greedy(n) for n in (1, 2)] == pytest.approx([1, 1]), (
            "all names are known after one attempt"
        )
    if level == 0:
        for n in range(6):
            assert best(n) == pytest.approx(greedy(n)), (
                "by reward alone there is nothing better than to go down the list"
            )


def test_how_far_a_planner_gets_beyond_greed():
    """The largest gap within seven attempts at one tool, all fourteen conventions. None at setting
    2; at 3 an attempt that cannot be right (values swapped, say) makes the judge point at the
    doubtful name."""
    for goal, gaps in (("final", (0.0016, 0, 0.0394)), ("sum", (0.0016, 0, 0))):
        for level, gap in zip((1, 2, 3), gaps):
            best, greedy = planner("weather", level, FULL, goal)
            assert max(best(n) - greedy(n) for n in range(8)) == pytest.approx(gap, abs=5e-5)


@pytest.mark.parametrize("level", range(4))
def test_greedy_planning_is_the_learner_of_the_curve(level):
    ranks = tuple(r for _, r in FULL)
    prior = np.array([p for p, _ in FULL])
    _, greedy = planner("weather", level, FULL, "final")
    said = answer_table(BY_NAME["weather"], ranks, level)
    curves = np.array([chain(prior, said, i, 6, [0.0, 1.0], 0) for i in range(len(prior))])
    assert prior @ curves == pytest.approx([greedy(n) for n in range(7)])
