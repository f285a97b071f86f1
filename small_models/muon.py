"""Muon (Keller Jordan's, as `torch.optim.Muon` has it), in float32 throughout.

torch multiplies in bfloat16: on a processor without instructions for that, an update takes ten
times as long as the rest of a step. The two differ by what bfloat16 rounds away, some parts in a
thousand of an update. Matrices of one shape are made orthogonal together, in one batched product.
"""

from __future__ import annotations

import math

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """For matrices (two dimensions) alone. Nesterov momentum; a step is about as large as AdamW's.

    `lr` may be a tensor, so that a captured CUDA graph can follow a schedule.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        lr: float | torch.Tensor,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(parameters, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))
        if any(p.dim() != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon is for matrices alone; give vectors and tables to AdamW")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, matrices in by_shape.items():
                self.move(group, shape, matrices)

    def move(self, group: dict, shape: torch.Size, matrices: list[torch.nn.Parameter]) -> None:
        """One update of all matrices of one shape (A, B), K of them."""
        gradients = [p.grad for p in matrices]
        buffers = [
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in matrices
        ]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
        updates = orthogonal(torch.stack(nesterov))  # (K, A, B)
        scale = 0.2 * math.sqrt(max(shape)) * group["lr"]
        for p, update in zip(matrices, updates):
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update * scale)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (K, A, B) with their singular values brought near 1 (between about 0.7 and 1.2).

    Five steps of a Newton-Schulz iteration.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x
