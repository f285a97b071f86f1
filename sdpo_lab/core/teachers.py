"""The self-teacher (paper §2.3, A.2).

The student itself, a frozen copy of it, a slow average of its weights, or (trust region) a mixture
of the frozen copy's and the student's logits. Letters of shapes: see `loop`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdpo_lab.core.scoring import completion_hidden, token_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Teacher:
    """Scores attempts under the teacher's prompt (`read`), and follows the student (`update`).

    kind  "live"          the student itself
          "frozen"        the student as it was
          "ema"           teacher <- (1 - rate) teacher + rate student
          "trust_region"  q ∝ frozen^(1-rate) · student^rate, both under the teacher's prompt, which
                          is a lerp of their logits (A.2)

    Built from the student object, never from a path. `model` has copies of the trainable weights
    and shares the others with the student. So of a model with LoRA only the adapter is copied.
    Frozen, the copy is the adapter as it was at the start; for a fresh adapter that equals the base
    model. An average follows the product BA (see `follow_product`). The copies have at least
    float32 whatever the student's dtype, since an average that moves by a hundredth a step does not
    move in bfloat16.
    """

    def __init__(self, student: PreTrainedModel, kind: str, rate: float) -> None:
        self.kind, self.rate, self.student = kind, rate, student
        self.model = student if kind == "live" else copy_of_trainable(student)
        for weight in self.copies().values():
            if weight.dtype in (torch.float16, torch.bfloat16):
                weight.data = weight.data.float()
        if kind == "ema":
            for a, b in self.lora_pairs():
                # twice the rank: an average of products of rank r has a higher one
                a.data = torch.cat([a.data, torch.zeros_like(a)])
                b.data = torch.cat([b.data, torch.zeros_like(b)], 1)

    def copies(self) -> dict[str, Tensor]:
        """The weights that are its own, by name: those that the student trains."""
        if self.kind == "live":
            return {}
        trainable = {name for name, p in self.student.named_parameters() if p.requires_grad}
        return {name: p for name, p in self.model.named_parameters() if name in trainable}

    def lora_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Its own LoRA factors A (k, in) and B (out, k).

        k is the student's rank, twice that once an "ema" teacher is built.
        """
        own = self.copies()
        return [(own[name], own[lora_b(name)]) for name in own if lora_b(name) in own]

    # -- scores -----------------------------------------------------------------------------------

    @torch.no_grad()
    def read(
        self, prompts: list[list[int]], completions: list[list[int]], temperature: float, bf16: bool
    ) -> Callable[[slice], Tensor]:
        """Read the attempts once. The function returned gives the logits of a slice of their
        tokens, which are counted one row after another, (C, V).
        """
        models = [self.model]
        if self.kind == "trust_region":
            models.append(self.student)
        hidden = [completion_hidden(model, prompts, completions, bf16) for model in models]
        return partial(self.logits, models, hidden, temperature, bf16)

    @torch.no_grad()
    def logits(
        self,
        models: list[PreTrainedModel],
        hidden: list[Tensor],
        temperature: float,
        bf16: bool,
        part: slice,
    ) -> Tensor:
        """Logits of the tokens `part` of what was read, (C, V)."""
        logits = [
            token_logits(model, states[part], temperature, bf16)
            for model, states in zip(models, hidden)
        ]
        if self.kind != "trust_region":
            return logits[0]
        frozen, student = logits
        return torch.lerp(frozen, student, self.rate)

    # -- follows ----------------------------------------------------------------------------------

    @torch.no_grad()
    def update(self) -> None:
        """Follow the student, for "ema" alone."""
        if self.kind != "ema":
            return
        own = self.copies()
        student = dict(self.student.named_parameters())
        paired = {b for name in own if (b := lora_b(name)) in own}
        for name, weight in own.items():
            b = lora_b(name)
            if b in own:
                follow_product(weight, own[b], student[name], student[b], self.rate)
            elif name not in paired:
                weight.lerp_(student[name].to(weight.dtype), self.rate)


def copy_of_trainable(student: PreTrainedModel) -> PreTrainedModel:
    """A copy of the trainable weights, without gradient; the others are the student's own."""
    shared = {id(p): p for p in student.parameters() if not p.requires_grad}
    return copy.deepcopy(student, shared).eval().requires_grad_(False)


frozen_copy = copy_of_trainable  #: its name before


def lora_b(name: str) -> str:
    """The name of the factor B that goes with a factor A; "" for any other name.

    Of a linear layer or an embedding.
    """
    other = name.replace(".lora_A.", ".lora_B.")
    other = other.replace(".lora_embedding_A.", ".lora_embedding_B.")
    return other if other != name else ""


def follow_product(a: Tensor, b: Tensor, new_a: Tensor, new_b: Tensor, rate: float) -> None:
    """b a <- (1 - rate) b a + rate new_b new_a, in place, as near as rank k allows.

    (k, in), (out, k), (r, in), (out, r). Averaging the factors one by one is not averaging their
    product: the two move together, and the cross term is lost (docs/architecture.md has the
    measured errors). The sum has rank k + r at most; QR of both sides and a singular value
    decomposition of the small matrix between keep its k largest directions.
    """
    columns = torch.cat([(1 - rate) * b, rate * new_b.to(b.dtype)], 1)  # (out, k + r)
    rows = torch.cat([a, new_a.to(a.dtype)])  # (k + r, in)
    left, upper = torch.linalg.qr(columns)
    right, lower = torch.linalg.qr(rows.T)
    u, size, v = torch.linalg.svd(upper @ lower.T)
    k = min(len(a), len(size))
    root = size[:k].sqrt()
    b.zero_()
    b[:, :k] = left @ (u[:, :k] * root)
    a.zero_()
    a[:k] = (v[:k] * root[:, None]) @ right.T
