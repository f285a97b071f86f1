"""What a batch of attempts looked like: the numbers of a step record."""

from __future__ import annotations

import math

from sdpo_lab.config import SDPOConfig
from sdpo_lab.rollouts import Rollout


def summary(rollouts: list[Rollout], groups: list[list[Rollout]], config: SDPOConfig) -> dict[str, float]:
    """Metrics of a batch, under the names of the official code where it has them."""

    def fraction(values) -> float:
        values = list(values)
        return sum(map(bool, values)) / len(values)

    threshold = config.success_reward_threshold
    return {
        "self_distillation/success_group_fraction": fraction(any(r.reward >= threshold for r in g) for g in groups),
        "self_distillation/success_sample_fraction": fraction(r.demonstration is not None for r in rollouts),
        "self_distillation/feedback_available_fraction": fraction(r.feedback for r in rollouts),
        "self_distillation/feedback_used_fraction": fraction(r.shown_feedback for r in rollouts),
        "self_distillation/reprompt_sample_fraction": fraction(r.shown for r in rollouts),
        "self_distillation/empty_target_batch": 0.0,
        "active_fraction": fraction(r.active for r in rollouts),
        "success_fraction": fraction(r.reward >= threshold for r in rollouts),
        "entropy": sum(r.entropy for r in rollouts) / len(rollouts),
        "completion_length": sum(len(r.completion_ids) for r in rollouts) / len(rollouts),
        "truncated_fraction": fraction(r.truncated for r in rollouts),
        "skipped": 0.0, "not_finite": 0.0, "grad_norm": math.nan, "optimizer_steps": 0.0, "reprompt_shortened_fraction": 0.0,  # as of a skipped step
    }
