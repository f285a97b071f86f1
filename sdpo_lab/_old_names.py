"""Names that methods of the loop had before; for one version a subclass may override them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from sdpo_lab.core.rollouts import Rollout


class OldNames:
    """`prepare(groups, number)` was `build_teacher_contexts` and `compute_advantages` in one."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "prepare" in vars(cls):
            warnings.warn(
                f"{cls.__name__}.prepare is called for one more version; override "
                "build_teacher_contexts and compute_advantages",
                DeprecationWarning,
                stacklevel=2,
            )
            for name, stage in STAGES_OF_PREPARE.items():
                if name not in vars(cls):
                    setattr(cls, name, stage)

    def prepare(self, groups: list[list[Rollout]], number: int) -> Tensor:
        # as the classes below those with a `prepare` of their own have them
        below = [kind for kind in type(self).__mro__ if "prepare" not in vars(kind)]
        contexts = next(kind for kind in below if "build_teacher_contexts" in vars(kind))
        advantages = next(kind for kind in below if "compute_advantages" in vars(kind))
        vars(contexts)["build_teacher_contexts"](self, groups, number)
        return vars(advantages)["compute_advantages"](self, groups)


def no_contexts(self: Any, groups: list[list[Rollout]], number: int) -> None:
    """`prepare` does it."""


def prepared_advantages(self: Any, groups: list[list[Rollout]]) -> Tensor:
    return self.prepare(groups, len(self.history) + 1)


STAGES_OF_PREPARE: dict[str, Callable] = {
    "build_teacher_contexts": no_contexts,
    "compute_advantages": prepared_advantages,
}
