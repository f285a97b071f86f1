"""The losses for use from outside: the formulas of `core.losses`, with their arguments checked.

Each function takes what the formula of its name takes, and raises TypeError or ValueError, with the
name, the value and what is allowed, for an argument that is out of its range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sdpo_lab.core import losses as formulas
from sdpo_lab.core.checks import check_choice, check_range, short_repr
from sdpo_lab.core.config import MODES, NORMALIZATIONS

__all__ = [
    "divergence",
    "kl",
    "top_k_support",
    "tail",
    "distillation_loss",
    "log_ratio",
    "importance_weights",
    "group_advantages",
    "policy_loss",
    "token_log_probs",
    "token_weights",
]

#: A clip of 0 would leave nothing.
SMALLEST_CLIP = 1e-9


def documented_by(formula: Callable) -> Callable[[Callable], Callable]:
    def document(function: Callable) -> Callable:
        function.__doc__ = formula.__doc__
        return function

    return document


@documented_by(formulas.divergence)
def divergence(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    check_tensors(student=student, teacher=teacher)
    check_range("alpha", alpha, float, 0, 1)
    return formulas.divergence(student, teacher, alpha)


@documented_by(formulas.kl)
def kl(a: Tensor, b: Tensor) -> Tensor:
    check_tensors(a=a, b=b)
    return formulas.kl(a, b)


@documented_by(formulas.top_k_support)
def top_k_support(
    student_logits: Tensor, teacher_logits: Tensor, top_k: int, add_tail: bool
) -> tuple[Tensor, Tensor]:
    check_tensors(student_logits=student_logits, teacher_logits=teacher_logits)
    top_k = check_range("top_k", top_k, int, 1)
    return formulas.top_k_support(student_logits, teacher_logits, top_k, add_tail)


@documented_by(formulas.tail)
def tail(log_probs: Tensor) -> Tensor:
    check_tensors(log_probs=log_probs)
    return formulas.tail(log_probs)


@documented_by(formulas.distillation_loss)
def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    completion_ids: Tensor,
    *,
    mode: str = "topk_logits",
    alpha: float = 1.0,
    top_k: int = 20,
    add_tail: bool = True,
    clip: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    check_tensors(student_logits=student_logits, teacher_logits=teacher_logits)
    check_ids("completion_ids", completion_ids, student_logits)
    mode = check_choice("mode", mode, MODES)
    alpha = check_range("alpha", alpha, float, 0, 1)
    top_k = check_range("top_k", top_k, int, 1)
    clip = check_clip(clip)
    if clip is not None and alpha != 1 and mode in ("topk_logits", "full_logits"):
        raise ValueError(
            f"clip={clip} needs alpha=1, got {alpha}: only the reverse KL has the log-ratio as "
            "its advantage"
        )
    return formulas.distillation_loss(
        student_logits,
        teacher_logits,
        completion_ids,
        mode=mode,
        alpha=alpha,
        top_k=top_k,
        add_tail=add_tail,
        clip=clip,
        mask=mask,
    )


@documented_by(formulas.log_ratio)
def log_ratio(student: Tensor, teacher: Tensor, clip: float | None = None) -> Tensor:
    check_tensors(student=student, teacher=teacher)
    return formulas.log_ratio(student, teacher, check_clip(clip))


@documented_by(formulas.importance_weights)
def importance_weights(log_prob: Tensor, old_log_prob: Tensor, clip: float) -> Tensor:
    check_tensors(log_prob=log_prob, old_log_prob=old_log_prob)
    clip = check_range("clip", clip, float, SMALLEST_CLIP)
    return formulas.importance_weights(log_prob, old_log_prob, clip)


@documented_by(formulas.group_advantages)
def group_advantages(rewards: Tensor, scale: bool = False) -> Tensor:
    check_tensors(rewards=rewards)
    return formulas.group_advantages(rewards, scale)


@documented_by(formulas.policy_loss)
def policy_loss(
    student_logits: Tensor,
    completion_ids: Tensor,
    advantages: Tensor,
    old_log_probs: Tensor | None = None,
    epsilon: float = 0.2,
    epsilon_high: float = 0.28,
) -> Tensor:
    check_tensors(student_logits=student_logits)
    check_ids("completion_ids", completion_ids, student_logits)
    epsilon = check_range("epsilon", epsilon, float, 0, 1)
    epsilon_high = check_range("epsilon_high", epsilon_high, float, 0)
    return formulas.policy_loss(
        student_logits, completion_ids, advantages, old_log_probs, epsilon, epsilon_high
    )


@documented_by(formulas.token_log_probs)
def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    check_tensors(logits=logits)
    check_ids("ids", ids, logits)
    return formulas.token_log_probs(logits, ids)


@documented_by(formulas.token_weights)
def token_weights(mask: Tensor, active: Tensor, normalize: str) -> Tensor:
    check_tensors(mask=mask)
    normalize = check_choice("normalize", normalize, NORMALIZATIONS)
    return formulas.token_weights(mask, active, normalize)


at_least_float32 = formulas.at_least_float32


# -- checks ---------------------------------------------------------------------------------------


def check_tensors(**tensors: Any) -> None:
    """Check tensors of floating-point numbers by name.

    Raises TypeError unless they are that, ValueError unless their shapes go together: the last
    dimension is the same as that of the first, those before it broadcast.
    """
    first_name, first = next(iter(tensors.items()))
    for name, t in tensors.items():
        if not getattr(t, "is_floating_point", lambda: False)():
            raise TypeError(
                f"{name} must be a torch tensor of floating-point numbers, got {short_repr(t)}"
            )
        if not go_together(t.shape, first.shape):
            raise ValueError(
                f"{name} must have the shape of {first_name}, of at least one dimension; got "
                f"{short_repr(t)} and {short_repr(first)}"
            )


def go_together(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    if not one or not other or one[-1] != other[-1]:
        return False
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(one), reversed(other)))


def check_ids(name: str, ids: Any, logits: Any) -> None:
    """Check token ids (...) beside logits (..., V).

    Raises TypeError unless they are a torch tensor of int64, ValueError unless there is one for
    each row of the logits.
    """
    if str(getattr(ids, "dtype", "")) != "torch.int64":
        raise TypeError(
            f"{name} must be a torch tensor of int64, the ids of tokens; got {short_repr(ids)}"
        )
    rows = logits.shape[:-1]
    if ids.shape != rows:
        raise ValueError(
            f"{name} must have the shape {tuple(rows)}, one token for each row of the logits; got "
            f"{short_repr(ids)}"
        )


def check_clip(clip: float | None) -> float | None:
    return None if clip is None else check_range("clip", clip, float, SMALLEST_CLIP)
