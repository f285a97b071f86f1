"""The attempts of a step as the update needs them: each with its two prompts, cut into parts.

Letters of shapes: see `loop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from sdpo_lab.core.rollouts import Rollout


@dataclass(frozen=True)
class Batch:
    """Attempts, and what belongs to each of them, in their order."""

    rollouts: list[Rollout]
    prompts: list[list[int]]  #: the student's
    teacher_prompts: list[list[int]]  #: [] where the teacher is shown nothing
    group_advantages: Tensor  #: GRPO's, (B,)
    old_log_probs: list[Tensor] | None = None  #: of an attempt's tokens, (T,); None: on policy

    @property
    def completions(self) -> list[list[int]]:
        return [r.completion_ids for r in self.rollouts]

    def select(self, places: Sequence[int]) -> Batch:
        old = self.old_log_probs
        return Batch(
            rollouts=[self.rollouts[i] for i in places],
            prompts=[self.prompts[i] for i in places],
            teacher_prompts=[self.teacher_prompts[i] for i in places],
            group_advantages=self.group_advantages[list(places)],
            old_log_probs=None if old is None else [old[i] for i in places],
        )

    def micro_batches(self, size: int) -> list[list[int]]:
        """Places of active attempts, for one forward and backward each.

        Those of like length together: less padding. In a mixture with GRPO, those whose teacher is
        shown nothing are by themselves, and it does not read them.
        """
        cut: list[list[int]] = []
        for shown in (True, False):
            places = [i for i, r in enumerate(self.rollouts) if r.active and bool(r.shown) == shown]
            places.sort(key=lambda i: len(self.rollouts[i].completion_ids))
            cut += [places[first : first + size] for first in range(0, len(places), size)]
        return cut


class Update(NamedTuple):
    """One optimiser step."""

    loss: float
    grad_norm: float  #: before clipping
    finite: bool  #: loss and gradient are, and so it was applied
