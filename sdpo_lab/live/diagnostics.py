"""What somebody who watches a run should know of its newest steps, in words."""

from __future__ import annotations

import collections
import math
from statistics import fmean as mean
from typing import Any

RECENT = 200  # steps among which a fall is looked for
FEW = 5  # steps to average over
FALL = 0.25  # of the reward
COLLAPSED = 0.1  # of what the entropy was
LONG = 0.25  # of the attempts cut off
ALWAYS = 10  # steps in a row


def worries(records: list[Any], config: Any = None) -> list[str]:
    """Sentences, the most pressing first; `config` for those that compare with its limits."""
    if not records:
        return []
    recent = records[-RECENT:]
    return [
        words
        for words in (
            batch(records[-1]),
            entropy(recent) or reward(recent),
            overlong(recent, config),
            gradient(recent, config),
        )
        if words
    ]


def batch(newest: Any) -> str:
    if newest.metrics.get("active_fraction") == 0:
        reasons = collections.Counter(r.why for r in newest.rollouts if getattr(r, "why", ""))
        nothing = not any(r.feedback or (r.reward or 0) > 0 for r in newest.rollouts)
        return (
            "No success and no feedback in this batch: nothing to learn from."
            if nothing or not reasons
            else f"No attempt of this batch took part in the update: {reasons.most_common(1)[0][0]}."
        )
    return (
        ""
        if math.isfinite(newest.loss)
        else "The loss of this step was not a number; the update was skipped."
    )


def fallen(recent: list[Any]) -> tuple[float, float]:
    """(best, now): means of the reward over `FEW` steps."""
    rewards = [r.reward for r in recent]
    return max(mean(rewards[i : i + FEW]) for i in range(len(rewards) - FEW + 1)), mean(
        rewards[-FEW:]
    )


def reward(recent: list[Any]) -> str:
    if len(recent) < 2 * FEW:
        return ""
    best, now = fallen(recent)
    return (
        f"The reward has fallen from {best:.2f} to {now:.2f} (means of {FEW} steps): a smaller learning rate or a slower teacher usually helps."
        if now < best - FALL
        else ""
    )


def entropy(recent: list[Any]) -> str:
    """A model that becomes right becomes sure as well: only where the reward does not follow is that a collapse."""
    values = [r.metrics.get("entropy", math.nan) for r in recent]
    if len(values) < 2 * FEW or not all(map(math.isfinite, values)):
        return ""
    most, now = (
        max(mean(values[i : i + FEW]) for i in range(len(values) - FEW + 1)),
        mean(values[-FEW:]),
    )
    best, reached = fallen(recent)
    if now < COLLAPSED * most and (reached < 0.5 or reached < best - FALL):
        return (
            f"The entropy is collapsing, from {most:.2g} to {now:.2g} nats, and the reward is {reached:.2f}: the model writes the same again and again. "
            "A slower teacher usually helps."
        )
    return ""


def overlong(recent: list[Any], config: Any) -> str:
    cut = mean(r.metrics.get("truncated_fraction", 0.0) for r in recent[-FEW:])
    limit = (
        f" at max_completion_length={config.max_completion_length}" if config is not None else ""
    )
    return (
        f"{round(100 * cut)} in 100 attempts are cut off{limit}: they have no end to learn, and usually no reward."
        if cut > LONG and len(recent) >= FEW
        else ""
    )


def gradient(recent: list[Any], config: Any) -> str:
    norms = [r.metrics.get("grad_norm", math.nan) for r in recent[-ALWAYS:]]
    if config is None or len(norms) < ALWAYS or not all(n > config.max_grad_norm for n in norms):
        return ""
    return (
        f"The gradient was clipped in each of the last {ALWAYS} steps, from about {sorted(norms)[ALWAYS // 2]:.2g} to max_grad_norm={config.max_grad_norm:g}: "
        "every step is as long as any other. A larger max_grad_norm lets its size count again."
    )
