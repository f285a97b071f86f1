"""Warnings in words: each where it is due, and none where a run does well."""

from __future__ import annotations

import math

import pytest

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.records import StepRecord
from sdpo_lab.live.diagnostics import worries

CONFIG = SDPOConfig.preset("laptop")


def run(steps: int = 30, loss=lambda k: 0.1, reward=lambda k: 0.5, **metrics) -> list[StepRecord]:
    """Records whose reward, loss and metrics are functions of k, from 0 to 1 along the run."""
    at = [k / max(1, steps - 1) for k in range(steps)]
    return [
        StepRecord(n + 1, reward(k), loss(k), {name: f(k) for name, f in metrics.items()}, [])
        for n, k in enumerate(at)
    ]


def learning(k):
    return 0.05 + 0.9 * k


@pytest.mark.parametrize(
    "records, words",
    [
        (
            run(
                reward=learning,
                entropy=lambda k: 0.5 - 0.48 * k,
                grad_norm=lambda k: 0.4,
                truncated_fraction=lambda k: 0.0,
            ),
            [],
        ),  # right, and so sure
        (run(reward=lambda k: 0.1, entropy=lambda k: 0.5 * 0.01**k), ["The entropy is collapsing"]),
        (
            run(reward=lambda k: max(0.0, 0.9 - 1.5 * k), entropy=lambda k: 0.5 * 0.01**k),
            ["The entropy is collapsing"],
        ),  # one warning, not two of one thing
        (
            run(reward=lambda k: max(0.0, 0.9 - 1.5 * k), entropy=lambda k: 0.5),
            ["The reward has fallen from 0.80 to 0.00"],
        ),
        (run(reward=lambda k: 0.1, entropy=lambda k: math.nan), []),
        (
            run(truncated_fraction=lambda k: 0.6 * (k > 0.5)),
            ["60 in 100 attempts are cut off at max_completion_length=64"],
        ),
        (run(truncated_fraction=lambda k: 0.2), []),
        (
            run(grad_norm=lambda k: 7.0),
            [
                "The gradient was clipped in each of the last 10 steps, from about 7 to "
                "max_grad_norm=1"
            ],
        ),
        (run(grad_norm=lambda k: 7.0 if k < 0.95 else 0.5), []),
        (run(grad_norm=lambda k: math.nan), []),
        (
            run(loss=lambda k: math.nan, active_fraction=lambda k: 1.0),
            ["The loss of this step was not a number"],
        ),
        (
            run(
                4,
                entropy=lambda k: 0.5 * 0.001**k,
                reward=lambda k: 0.0,
                grad_norm=lambda k: 9.0,
                truncated_fraction=lambda k: 1.0,
            ),
            [],
        ),  # too early to say
        ([], []),
    ],
)
def test_what_is_said(records, words):
    said = worries(records, CONFIG)
    assert len(said) == len(words) and all(s.startswith(w) for s, w in zip(said, words)), said


def test_without_a_configuration_nothing_is_compared_with_its_limits():
    assert worries(run(grad_norm=lambda k: 7.0)) == []
    assert worries(run(truncated_fraction=lambda k: 1.0))[0].startswith(
        "100 in 100 attempts are cut off: they"
    )
