"""What the checks share: recognising a known wrong answer, comparing, and a model small enough to read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

UNWRITTEN = "○ not written yet: the function returns None"


class ToyModel:
    """Logits that depend on all tokens so far, from a table one can read: what a causal model promises, with nothing learned.

    `model(ids).logits` is (B, L, V) for ids (B, L), as with a model of transformers.
    """

    device = torch.device("cpu")

    def __init__(self, vocabulary: int = 5) -> None:
        self.table = (
            torch.linspace(-2, 2, vocabulary * vocabulary)
            .sin()
            .mul(3)
            .view(vocabulary, vocabulary)
            .requires_grad_()
        )

    def __call__(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids].cumsum(1))


def recognise(found: Any, right: torch.Tensor, wrong: dict[str, list[torch.Tensor]]) -> str:
    """The words for the first known wrong answer that `found` equals, else what can be said of its shape and distance."""
    if not isinstance(found, torch.Tensor):
        return f"returns a {type(found).__name__}, a tensor was expected"
    for words, answers in wrong.items():
        if any(is_close(found, answer) for answer in answers):
            return words
    if found.shape != right.shape:
        return f"the shape is {tuple(found.shape)}, it should be {tuple(right.shape)}"
    return f"the shape is right, the numbers are not: the largest difference is {float((found - right).detach().abs().max()):.2g}. I do not know this mistake"


def is_close(found: Any, answer: torch.Tensor) -> bool:
    """Equal in shape and, to rounding, in value."""
    return (
        isinstance(found, torch.Tensor)
        and found.shape == answer.shape
        and torch.allclose(found.detach().to(answer.dtype), answer.detach(), atol=1e-5)
    )
