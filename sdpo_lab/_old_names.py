"""Names that methods of the loop had before; for one version a subclass may override them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from sdpo_lab.core.rollouts import Rollout


class OldNames:
    """`prepare(groups, number)` was `build_teacher_contexts`, `compute_advantages` and
    `activate_rewarded` in one.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "prepare" in vars(cls):
            warnings.warn(
                f"{cls.__name__}.prepare is called for one more version; override "
                "build_teacher_contexts and compute_advantages",
                DeprecationWarning,
                stacklevel=2,
            )
            own = set(vars(cls))
            if "compute_advantages" in own:  # a class for this version and the one before
                own.add("activate_rewarded")
            for name, stage in STAGES_OF_PREPARE.items():
                if name not in own:
                    setattr(cls, name, stage)

    def prepare(self, groups: list[list[Rollout]], number: int) -> Tensor:
        # as the classes below those with a `prepare` of their own have them
        below = [kind for kind in type(self).__mro__ if "prepare" not in vars(kind)]
        contexts, compute, activate = (
            next(vars(kind)[name] for kind in below if name in vars(kind))
            for name in STAGES_OF_PREPARE
        )
        contexts(self, groups, number)
        advantages = compute(self, groups)
        activate(self, groups, advantages)
        return advantages


def no_contexts(self: Any, groups: list[list[Rollout]], number: int) -> None:
    """`prepare` does it."""


def prepared_advantages(self: Any, groups: list[list[Rollout]]) -> Tensor:
    return self.prepare(groups, len(self.history) + 1)


def nothing_more(self: Any, groups: list[list[Rollout]], advantages: Tensor) -> None:
    """`prepare` has decided who takes part."""


STAGES_OF_PREPARE: dict[str, Callable] = {
    "build_teacher_contexts": no_contexts,
    "compute_advantages": prepared_advantages,
    "activate_rewarded": nothing_more,
}
