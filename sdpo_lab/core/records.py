"""What a step leaves behind: its record, with the numbers that say what its batch looked like, and the history."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout


@dataclass(frozen=True)
class StepRecord:
    """One step of training. `reward` is that of the attempts sampled *before* the update."""

    step: int  #: 1 for the first
    reward: float  #: mean over the attempts
    loss: float  #: of the update; nan when the step was skipped
    metrics: dict[str, float]
    rollouts: list[Rollout] = field(repr=False)
    seconds: float = 0.0


@dataclass
class History:
    """All step records of a trainer, and every change made on the way: `changes[step]` took effect at that step.

    The attempts of the newest `keep_attempts` steps (all when None) stay in memory; an older record has `rollouts=[]`. What was
    saved before that stays on disk.
    """

    records: list[StepRecord] = field(default_factory=list)
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    keep_attempts: int | None = 500

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> StepRecord:
        return self.records[i]

    def __iter__(self):
        return iter(self.records)

    def append(self, record: StepRecord) -> None:
        """Add the record of a step; those that grow too old for it lose their attempts."""
        self.records.append(record)
        old = len(self.records) - (
            len(self.records) if self.keep_attempts is None else self.keep_attempts
        )
        while old > 0 and self.records[old - 1].rollouts:
            old -= 1
            self.records[old] = replace(self.records[old], rollouts=[])

    def rows(self) -> list[dict[str, float]]:
        """JSON-able: step, reward, loss, seconds and all metrics, without the attempts."""
        return [
            {"step": r.step, "reward": r.reward, "loss": r.loss, "seconds": r.seconds, **r.metrics}
            for r in self.records
        ]

    def to_frame(self):
        """The same as a pandas table, one row a step."""
        import pandas

        return (
            pandas.DataFrame(self.rows()).set_index("step") if self.records else pandas.DataFrame()
        )


def summary(
    rollouts: list[Rollout], groups: list[list[Rollout]], config: SDPOConfig
) -> dict[str, float]:
    """Metrics of a batch, under the names of the official code where it has them."""

    def fraction(values) -> float:
        values = list(values)
        return sum(map(bool, values)) / len(values)

    threshold = config.success_reward_threshold
    return {
        "self_distillation/success_group_fraction": fraction(
            any(r.reward >= threshold for r in g) for g in groups
        ),
        "self_distillation/success_sample_fraction": fraction(
            r.demonstration is not None for r in rollouts
        ),
        "self_distillation/feedback_available_fraction": fraction(r.feedback for r in rollouts),
        "self_distillation/feedback_used_fraction": fraction(r.shown_feedback for r in rollouts),
        "self_distillation/reprompt_sample_fraction": fraction(r.shown for r in rollouts),
        "self_distillation/empty_target_batch": 0.0,
        "active_fraction": fraction(r.active for r in rollouts),
        "success_fraction": fraction(r.reward >= threshold for r in rollouts),
        "entropy": sum(r.entropy for r in rollouts) / len(rollouts),
        "completion_length": sum(len(r.completion_ids) for r in rollouts) / len(rollouts),
        "truncated_fraction": fraction(r.truncated for r in rollouts),
        "skipped": 0.0,
        "not_finite": 0.0,
        "grad_norm": math.nan,
        "optimizer_steps": 0.0,
        "reprompt_shortened_fraction": 0.0,  # as of a skipped step
    }
