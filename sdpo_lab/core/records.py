"""What a step leaves behind: its record, with the numbers that say what its batch looked like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sdpo_lab.core.batch import Update
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout

if TYPE_CHECKING:
    import pandas


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
    """All step records of a trainer, and the changes on the way.

    `changes[step]` took effect at that step. The attempts of the newest `keep_attempts` steps (all
    when None) stay in memory; an older record has `rollouts=[]`. What was saved before that stays
    on disk.
    """

    records: list[StepRecord] = field(default_factory=list)
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    keep_attempts: int | None = 500

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> StepRecord:
        return self.records[i]

    def __iter__(self) -> Iterator[StepRecord]:
        return iter(self.records)

    def append(self, record: StepRecord) -> None:
        """Add a step's record.

        Drops the attempts of records older than the newest keep_attempts.
        """
        self.records.append(record)
        if self.keep_attempts is None:
            return
        old = len(self.records) - self.keep_attempts
        while old > 0 and self.records[old - 1].rollouts:
            old -= 1
            self.records[old] = replace(self.records[old], rollouts=[])

    def rows(self) -> list[dict[str, float]]:
        """JSON-able: step, reward, loss, seconds and all metrics, without the attempts."""
        return [
            {"step": r.step, "reward": r.reward, "loss": r.loss, "seconds": r.seconds, **r.metrics}
            for r in self.records
        ]

    def to_frame(self) -> pandas.DataFrame:
        """The same as a pandas table, one row a step."""
        import pandas

        rows = pandas.DataFrame(self.rows())
        return rows.set_index("step") if self.records else rows


def summary(
    rollouts: list[Rollout], groups: list[list[Rollout]], config: SDPOConfig
) -> dict[str, float]:
    """Metrics of a batch, under the names of the official code where it has them.

    Starts from the values of a skipped step; the update's (`update_metrics`) overwrite them.
    """
    threshold = config.success_reward_threshold
    demonstrated = [r.demonstration is not None for r in rollouts]
    succeeded = [any(r.succeeded(threshold) for r in group) for group in groups]
    return {
        "self_distillation/success_group_fraction": fraction(succeeded),
        # official name; = was shown a sibling's solution
        "self_distillation/success_sample_fraction": fraction(demonstrated),
        "self_distillation/feedback_available_fraction": fraction(r.feedback for r in rollouts),
        "self_distillation/feedback_used_fraction": fraction(r.shown_feedback for r in rollouts),
        "self_distillation/reprompt_sample_fraction": fraction(r.shown for r in rollouts),
        "self_distillation/empty_target_batch": 1.0,
        "active_fraction": fraction(r.active for r in rollouts),
        "success_fraction": fraction(r.succeeded(threshold) for r in rollouts),
        "entropy": mean(r.entropy for r in rollouts),
        "completion_length": mean(len(r.completion_ids) for r in rollouts),
        "truncated_fraction": fraction(r.truncated for r in rollouts),
        "skipped": 1.0,
        "not_finite": 0.0,
        "grad_norm": math.nan,
        "optimizer_steps": 0.0,
        "reprompt_shortened_fraction": 0.0,
    }


def update_metrics(updates: list[Update], shortened: int, attempts: int) -> dict[str, float]:
    """Metrics of the optimiser steps of a batch; {} where there was none.

    `shortened` of the `attempts` had a teacher's prompt that was too long.
    """
    if not updates:
        return {}
    applied = sum(update.finite for update in updates)
    return {
        "self_distillation/empty_target_batch": 0.0,
        "skipped": 0.0,
        "grad_norm": fmean(update.grad_norm for update in updates),
        "not_finite": 1 - applied / len(updates),
        "optimizer_steps": float(applied),
        "reprompt_shortened_fraction": shortened / attempts,
    }


def mean_reward(rollouts: list[Rollout]) -> float:
    """Of attempts that are judged."""
    return mean(r.reward for r in rollouts if r.reward is not None)


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def fraction(values: Iterable[object]) -> float:
    """The share of those that are true, or not empty."""
    return mean(bool(value) for value in values)
