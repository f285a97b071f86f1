"""The self-teacher's weights: the student itself, its frozen beginning, or a slow average of it (paper §2.3, A.2)."""

from __future__ import annotations

import copy
from typing import Any

import torch


class Teacher:
    """`model` scores the attempts under the teacher's prompt; `update(student)` follows the student.

    Built from the student object, never from a path; a separate teacher has at least float32 whatever the student's
    dtype, since an average that moves by a hundredth a step does not move in bfloat16.
    """

    def __init__(self, student: Any, kind: str, rate: float) -> None:
        self.kind, self.rate = kind, rate
        self.model = student if kind == "live" else copy.deepcopy(student).eval().requires_grad_(False)
        if kind != "live":
            for p in self.model.parameters():
                p.data = p.data.float() if p.dtype in (torch.float16, torch.bfloat16) else p.data

    @torch.no_grad()
    def update(self, student: Any) -> None:
        """After every optimiser step: teacher <- (1 - rate) teacher + rate student, for "ema" alone."""
        if self.kind == "ema":
            for mine, new in zip(self.model.parameters(), student.parameters()):
                mine.lerp_(new.to(mine.dtype), self.rate)
