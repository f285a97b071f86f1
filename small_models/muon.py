"""Muon (Keller Jordan's, as `torch.optim.Muon` has it), in float32 throughout.

torch multiplies in bfloat16: on a processor without instructions for that, an update takes ten times as long as the rest of a step. The two
differ by what bfloat16 rounds away, some parts in a thousand of an update.
"""

from __future__ import annotations

import math

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """For matrices (two dimensions) alone. Nesterov momentum; the learning rate is scaled so that a step is about as large as AdamW's."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))
        if any(p.dim() != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon is for matrices alone; give vectors and tables to AdamW")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=0.2 * math.sqrt(max(p.shape)) * group["lr"])


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix (A, B) with its singular values brought near 1 (between about 0.7 and 1.2), by five steps of a Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
