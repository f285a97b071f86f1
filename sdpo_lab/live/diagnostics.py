"""What somebody who watches a run should know of its newest steps, in words."""

from __future__ import annotations

import collections
import math
from statistics import fmean as mean
from typing import Any

RECENT = 200  # steps among which a fall is looked for
AVERAGED = 5  # steps in a mean
FALL = 0.25  # of the reward
COLLAPSED = 0.1  # of the highest entropy
TRUNCATED = 0.25  # of the attempts
CLIPPED = 10  # steps in a row


def diagnose(records: list[Any], config: Any = None) -> list[str]:
    """Sentences, the most pressing first; `config` for those that compare with its limits."""
    if not records:
        return []
    recent = records[-RECENT:]
    sentences = (
        batch(records[-1]),
        entropy(recent) or reward(recent),
        truncated(recent, config),
        gradient(recent, config),
    )
    return [sentence for sentence in sentences if sentence]


worries = diagnose  # its name before 0.2


def batch(newest: Any) -> str:
    if newest.metrics.get("active_fraction") == 0:
        reasons = collections.Counter(r.why for r in newest.rollouts if getattr(r, "why", ""))
        if not reasons or not any(r.feedback or (r.reward or 0) > 0 for r in newest.rollouts):
            return "No success and no feedback in this batch: nothing to learn from."
        reason = reasons.most_common(1)[0][0]
        return f"No attempt of this batch took part in the update: {reason}."
    if not math.isfinite(newest.loss):
        return "The loss of this step was not a number; the update was skipped."
    return ""


def highest_and_last(values: list[float]) -> tuple[float, float]:
    """The highest and the last mean over `AVERAGED` steps."""
    last = len(values) - AVERAGED
    return max(mean(values[i : i + AVERAGED]) for i in range(last + 1)), mean(values[last:])


def reward(recent: list[Any]) -> str:
    if len(recent) < 2 * AVERAGED:
        return ""
    best, now = highest_and_last([r.reward for r in recent])
    if now >= best - FALL:
        return ""
    return (
        f"The reward has fallen from {best:.2f} to {now:.2f} (means of {AVERAGED} steps): a "
        "smaller learning rate or a slower teacher usually helps."
    )


def entropy(recent: list[Any]) -> str:
    """A right model becomes sure as well: it is a collapse where the reward does not follow."""
    values = [r.metrics.get("entropy", math.nan) for r in recent]
    if len(values) < 2 * AVERAGED or not all(map(math.isfinite, values)):
        return ""
    highest, now = highest_and_last(values)
    best_reward, reward_now = highest_and_last([r.reward for r in recent])
    right = reward_now >= 0.5 and reward_now >= best_reward - FALL
    if now >= COLLAPSED * highest or right:
        return ""
    return (
        f"The entropy is collapsing, from {highest:.2g} to {now:.2g} nats, and the reward is "
        f"{reward_now:.2f}: the model writes the same again and again. A slower teacher usually "
        "helps."
    )


def truncated(recent: list[Any], config: Any) -> str:
    share = mean(r.metrics.get("truncated_fraction", 0.0) for r in recent[-AVERAGED:])
    if share <= TRUNCATED or len(recent) < AVERAGED:
        return ""
    limit = f" at max_completion_length={config.max_completion_length}" if config else ""
    return (
        f"{round(100 * share)} in 100 attempts are cut off{limit}: they have no end to learn, and "
        "usually no reward."
    )


def gradient(recent: list[Any], config: Any) -> str:
    norms = [r.metrics.get("grad_norm", math.nan) for r in recent[-CLIPPED:]]
    if config is None or len(norms) < CLIPPED or not all(n > config.max_grad_norm for n in norms):
        return ""
    middle = sorted(norms)[CLIPPED // 2]
    return (
        f"The gradient was clipped in each of the last {CLIPPED} steps, from about {middle:.2g} to "
        f"max_grad_norm={config.max_grad_norm:g}: every step is as long as any other. A larger "
        "max_grad_norm lets its size count again."
    )
