"""The self-teacher's weights: the student itself, its frozen beginning, a slow average of it, or a mixture of both (paper §2.3, A.2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from sdpo_lab.core.scoring import completion_hidden, token_logits


class Teacher:
    """Scores attempts under the teacher's prompt (`read`), and follows the student (`update`).

    kind  "live"          the student itself
          "frozen"        the student as it was
          "ema"           teacher <- (1 - rate) teacher + rate student
          "trust_region"  q ∝ frozen^(1-rate) · student^rate, both under the teacher's prompt, which is a lerp of their logits (A.2)

    Built from the student object, never from a path. `model` has copies of the trainable weights and shares the others
    with the student, so of a model with LoRA only the adapter is copied: frozen, that is the adapter as it was, for a fresh one
    the same as adapter off; an average follows the product BA (see `follow_product`). The copies have at least float32
    whatever the student's dtype, since an average that moves by a hundredth a step does not move in bfloat16.
    """

    def __init__(self, student: Any, kind: str, rate: float) -> None:
        self.kind, self.rate, self.student = kind, rate, student
        self.model = student
        if kind != "live":
            shared = {id(p): p for p in student.parameters() if not p.requires_grad}
            self.model = copy.deepcopy(student, shared).eval().requires_grad_(False)
            for p in self.copies().values():
                p.data = p.data.float() if p.dtype in (torch.float16, torch.bfloat16) else p.data
        if kind == "ema":
            for (
                a,
                b,
            ) in (
                self.lora_pairs()
            ):  # twice the rank: an average of products of rank r has a higher one
                a.data, b.data = (
                    torch.cat([a.data, torch.zeros_like(a)]),
                    torch.cat([b.data, torch.zeros_like(b)], 1),
                )

    def copies(self) -> dict[str, torch.Tensor]:
        """The weights that are its own, by name; those of the student that can be trained."""
        if self.kind == "live":
            return {}
        trainable = {name for name, p in self.student.named_parameters() if p.requires_grad}
        return {name: p for name, p in self.model.named_parameters() if name in trainable}

    def read(
        self, prompts: list[list[int]], completions: list[list[int]], temperature: float, bf16: bool
    ) -> Callable[[slice], torch.Tensor]:
        """Read the attempts once; the function returned gives the logits of a slice of their tokens, one after another, (C, V)."""
        models = [self.model, self.student] if self.kind == "trust_region" else [self.model]
        with torch.no_grad():
            hidden = [completion_hidden(m, prompts, completions, bf16) for m in models]

        @torch.no_grad()
        def logits(part: slice) -> torch.Tensor:
            found = [token_logits(m, h[part], temperature, bf16) for m, h in zip(models, hidden)]
            return torch.lerp(*found, self.rate) if len(found) == 2 else found[0]

        return logits

    def lora_pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Its own LoRA factors A (k, in) and B (out, k), k twice the student's rank."""
        mine = self.copies()
        return [(p, mine[lora_b(name)]) for name, p in mine.items() if lora_b(name) in mine]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the student, for "ema" alone."""
        if self.kind == "ema":
            mine, new = self.copies(), dict(self.student.named_parameters())
            factors = {name for a in mine if lora_b(a) in mine for name in (a, lora_b(a))}
            for name, p in mine.items():
                if name not in factors:
                    p.lerp_(new[name].to(p.dtype), self.rate)
                elif lora_b(name) in mine:
                    follow_product(p, mine[lora_b(name)], new[name], new[lora_b(name)], self.rate)


def lora_b(name: str) -> str:
    """The name of the factor B that belongs to a factor A, of a linear layer or an embedding; "" for any other name."""
    other = name.replace(".lora_A.", ".lora_B.").replace(".lora_embedding_A.", ".lora_embedding_B.")
    return other if other != name else ""


def follow_product(
    a: torch.Tensor, b: torch.Tensor, new_a: torch.Tensor, new_b: torch.Tensor, rate: float
) -> None:
    """b a <- (1 - rate) b a + rate new_b new_a, in place, as near as rank k allows: (k, in), (out, k), (r, in), (out, r).

    Averaging the factors one by one is not averaging their product: the two move together, and the cross term is lost
    (docs/architecture.md has the measured errors). The sum has rank k + r at most; QR of both sides and a singular value
    decomposition of the small matrix between keep its k largest directions.
    """
    left, upper = torch.linalg.qr(torch.cat([(1 - rate) * b, rate * new_b.to(b.dtype)], 1))
    right, lower = torch.linalg.qr(torch.cat([a, new_a.to(a.dtype)]).T)
    u, size, v = torch.linalg.svd(upper @ lower.T)
    k = min(len(a), len(size))
    b.zero_()[:, :k] = left @ (u[:, :k] * size[:k].sqrt())
    a.zero_()[:k] = (v[:k] * size[:k, None].sqrt()) @ right.T
