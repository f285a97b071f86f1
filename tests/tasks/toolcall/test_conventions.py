"""Conventions: their prior, how often it is right, and the levels of novelty."""

from __future__ import annotations

import math

import pytest

from sdpo_lab.tasks.toolcall import ToolCall
from sdpo_lab.tasks.toolcall.world import (
    BY_NAME,
    HELD_OUT_TOOLS,
    NOVELTY,
    PRIOR,
    TOOLS,
    combinations,
    draw_convention,
    is_held_out,
    names_of,
)


def test_prior_is_a_distribution():
    assert math.isclose(sum(PRIOR), 1)
    for tool in TOOLS + HELD_OUT_TOOLS:
        every = combinations(tool)
        assert math.isclose(sum(p for p, _ in every), 1)
        assert not any(is_held_out(ranks) for _, ranks in every)
        names = [n for a in tool.arguments for n in (*a.names, *filter(None, [a.held_out]))]
        assert len(names) == len(set(names)), "no name for two arguments of one tool"


def prior_accuracy(task: ToolCall) -> float:
    """How often a learner who knows the prior alone writes one call right, over tools, exactly."""
    right = []
    for tool in TOOLS:
        names = task.convention[tool.name]
        (p,) = [p for p, ranks in combinations(tool) if names_of(tool, ranks) == names]
        right.append(p)
    return sum(right) / len(right)


DIAL = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.35, 0.5)


@pytest.mark.parametrize("base", DIAL)
def test_base_accuracy_is_what_the_dial_says(base):
    """Few combinations exist, so one convention may miss by a step; the mean over seeds lies within
    a factor 1.6."""
    accuracies = [prior_accuracy(ToolCall(seed, base_accuracy=base)) for seed in range(12)]
    mean = sum(accuracies) / len(accuracies)
    assert base / 1.6 <= mean <= base * 1.6, accuracies
    assert max(accuracies) / min(accuracies) < 2.5


def test_base_accuracy_is_monotone():
    means = [
        sum(prior_accuracy(ToolCall(seed, base_accuracy=base)) for seed in range(12))
        for base in DIAL
    ]
    assert means == sorted(means)


def test_conventions_differ_between_seeds_and_repeat():
    drawn = [draw_convention(seed) for seed in range(20)]
    assert len({str(c) for c in drawn}) == 20
    assert drawn == [draw_convention(seed) for seed in range(20)]


@pytest.mark.parametrize("seed", range(5))
def test_levels_of_novelty_are_what_they_say(seed):
    ranks = {name: {} for name in NOVELTY}
    for novelty in NOVELTY:
        for tool, names in draw_convention(seed, novelty=novelty).items():
            arguments = BY_NAME[tool].arguments
            ranks[novelty][tool] = [
                a.names.index(names[a.role]) if names[a.role] in a.names else None
                for a in arguments
            ]
    assert set(ranks["tool"]) == {t.name for t in HELD_OUT_TOOLS}
    assert all(set(ranks[n]) == {t.name for t in TOOLS} for n in NOVELTY if n != "tool")
    assert all(None not in r and not is_held_out(r) for r in ranks["seen"].values())
    assert all(is_held_out(r) for r in ranks["combination"].values())
    assert all(
        (r[i] is None) == bool(a.held_out)
        for t, r in ranks["pair"].items()
        for i, a in enumerate(BY_NAME[t].arguments)
    )
    assert all(r == [None] * len(r) for r in ranks["nonsense"].values())
    everything = {
        n for t in TOOLS + HELD_OUT_TOOLS for a in t.arguments for n in (*a.names, a.held_out)
    }
    nonsense = [
        n for names in draw_convention(seed, novelty="nonsense").values() for n in names.values()
    ]
    assert not everything & set(nonsense) and all(n.isidentifier() for n in nonsense)
