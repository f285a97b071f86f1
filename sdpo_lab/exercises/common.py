"""What the checks share: recognising a known wrong answer, and a model small enough to read.

A table of mistakes is {words: what gives the wrong answers}. What gives them is a function of a
namespace `s`, which holds the numbers of the exercise and what is computed from them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

UNWRITTEN = "○ not written yet: the function returns None"

Mistakes = dict[str, Callable[[SimpleNamespace], list[torch.Tensor]]]


class ToyModel:
    """Logits that depend on all tokens so far, from a table one can read: what a causal model
    promises, with nothing learned.

    `model(ids).logits` is (B, L, V) for ids (B, L), as with a model of transformers.
    """

    device = torch.device("cpu")

    def __init__(self, vocabulary: int = 5) -> None:
        waves = torch.linspace(-2, 2, vocabulary * vocabulary).sin().mul(3)
        self.table = waves.view(vocabulary, vocabulary).requires_grad_()

    def __call__(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids].cumsum(1))


def recognise(
    name: str, answer: Any, right: torch.Tensor, mistakes: Mistakes, s: SimpleNamespace
) -> str:
    """A wrong answer to the exercise `name` in words: the first of `mistakes` that gives the same,
    else what can be said of its shape and distance."""
    if not isinstance(answer, torch.Tensor):
        return f"✗ {name}: returns a {type(answer).__name__}, a tensor was expected"
    for words, wrong_answers in mistakes.items():
        if any(is_close(answer, wrong) for wrong in wrong_answers(s)):
            return f"✗ {name}: {words}"
    if answer.shape != right.shape:
        shapes = f"the shape is {tuple(answer.shape)}, it should be {tuple(right.shape)}"
        return f"✗ {name}: {shapes}"
    distance = float((answer - right).detach().abs().max())
    return (
        f"✗ {name}: the shape is right, the numbers are not: the largest difference is "
        f"{distance:.2g}. I do not know this mistake"
    )


def check_descent(
    name: str,
    loss: Any,
    right: torch.Tensor,
    mistakes: Mistakes,
    s: SimpleNamespace,
    *,
    averaged: str,
    detached: str,
) -> str:
    """What is wrong with a loss of which the gradient with respect to `s.logits` alone is looked
    at; "" when nothing is. `right` and `mistakes` are losses, `averaged` is what the mean runs
    over, and `detached` explains a loss without a gradient."""
    if loss is None:
        return UNWRITTEN
    if not isinstance(loss, torch.Tensor):
        return f"✗ {name}: returns a {type(loss).__name__}, a tensor was expected"
    if loss.numel() != 1:
        return (
            f"✗ {name}: the shape is {tuple(loss.shape)}. A loss is one number: take the mean over "
            f"the {averaged}"
        )
    if not loss.requires_grad:
        return f"✗ {name}: no gradient flows back to the logits. {detached}"

    def gradient(of: torch.Tensor) -> torch.Tensor:
        found = torch.autograd.grad(of.sum(), s.logits, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(s.logits) if found is None else found

    def gradients(losses: Callable) -> Callable:
        return lambda s: [gradient(wrong) for wrong in losses(s)]

    if is_close(gradient(loss), gradient(right)):
        return ""
    wrong_steps = {words: gradients(losses) for words, losses in mistakes.items()}
    said = recognise(name, gradient(loss), gradient(right), wrong_steps, s)
    return said.replace(
        "the shape is right, the numbers", "the gradient's shape is right, its numbers"
    )


def is_close(found: Any, answer: torch.Tensor) -> bool:
    """Equal in shape and, to rounding, in value."""
    return (
        isinstance(found, torch.Tensor)
        and found.shape == answer.shape
        and torch.allclose(found.detach().to(answer.dtype), answer.detach(), atol=1e-5)
    )
