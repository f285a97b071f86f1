"""The losses as pure tensor functions: what a reader should be able to check against the paper line by line.

B attempts, T tokens, V vocabulary entries, K of them in the support. p is the student, q the teacher.
"""

from __future__ import annotations

import math

import torch

#: The tail bucket holds at least this much mass, exp(-16.1), as in the released code: log(0) must not be reached.
SMALLEST_TAIL = 1e-7


def divergence(student: torch.Tensor, teacher: torch.Tensor, alpha: float) -> torch.Tensor:
    """Divergence of two distributions given as log-probabilities over their last dimension, (..., K) -> (...).

    alpha 0: forward KL(q||p). alpha 1: reverse KL(p||q), the paper's Eq. 1. Between: the generalised Jensen-Shannon
    divergence (1-alpha) KL(p||m) + alpha KL(q||m), m = (1-alpha) p + alpha q, which tends to 0 at both ends: the
    family jumps there, in the paper's code and in TRL alike.
    """
    if alpha == 0:
        return kl(teacher, student)
    if alpha == 1:
        return kl(student, teacher)
    middle = torch.logaddexp(student + math.log1p(-alpha), teacher + math.log(alpha))
    return (1 - alpha) * kl(student, middle) + alpha * kl(teacher, middle)


def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """KL(a||b) of log-probabilities, (..., K) -> (...); an entry without mass in `a` adds nothing."""
    return (a.exp() * (a - b).masked_fill(a == -torch.inf, 0)).sum(-1)


def top_k_support(student_logits: torch.Tensor, teacher_logits: torch.Tensor, top_k: int, add_tail: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Both log-distributions on the student's `top_k` tokens, (..., V) -> (..., K+1) with tail or (..., K) renormalised (paper A.3)."""
    chosen = student_logits.detach().topk(min(top_k, student_logits.shape[-1]), -1).indices
    both = [logits.gather(-1, chosen) - logits.logsumexp(-1, keepdim=True) for logits in (student_logits, teacher_logits)]
    if not add_tail:
        return tuple(log_probs - log_probs.logsumexp(-1, keepdim=True) for log_probs in both)
    return tuple(torch.cat([log_probs, tail(log_probs)], -1) for log_probs in both)


def tail(log_probs: torch.Tensor) -> torch.Tensor:
    """Log of the mass outside the support, (..., K) -> (..., 1)."""
    inside = log_probs.logsumexp(-1, keepdim=True).clamp(max=-SMALLEST_TAIL)
    return torch.log(-torch.expm1(inside))


def token_log_probs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """log p of each token, (B, T, V), (B, T) -> (B, T)."""
    return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)


def distillation_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, completion_ids: torch.Tensor, *, mode: str = "topk_logits",
                      alpha: float = 1.0, top_k: int = 20, add_tail: bool = True) -> torch.Tensor:
    """SDPO's loss of every token, (B, T, V), (B, T, V), (B, T) -> (B, T). No gradient reaches the teacher.

    "full_logits" and "topk_logits" are divergences over the vocabulary or the student's top k (Eq. 1, A.3);
    "sampled_token" is sg(log p(y) - log q(y)) log p(y), whose gradient estimates that of the reverse KL from the
    sampled token alone (§2.3; its value means nothing, and may be negative).
    """
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    if mode == "sampled_token":
        p, q = token_log_probs(student, completion_ids), token_log_probs(teacher, completion_ids)
        return (p - q).detach() * p
    if mode == "topk_logits":
        return divergence(*top_k_support(student, teacher, top_k, add_tail), alpha)
    if mode == "full_logits":
        return divergence(student.log_softmax(-1), teacher.log_softmax(-1), alpha)
    raise ValueError(f"distillation_mode must be 'full_logits', 'topk_logits' or 'sampled_token'; got {mode!r}")


def group_advantages(rewards: torch.Tensor, scale: bool = False) -> torch.Tensor:
    """GRPO: reward minus the group's mean, and with `scale` over its standard deviation + 1e-4 (TRL), (P, G) -> (P, G)."""
    same = (rewards == rewards[:, :1]).all(1, keepdim=True)  # rounding must not make eight thirds differ from their mean
    centred = (rewards - rewards.mean(1, keepdim=True)).masked_fill(same, 0)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale and rewards.shape[1] > 1 else centred


def policy_loss(student_logits: torch.Tensor, completion_ids: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """GRPO's loss of every token, (B, T, V), (B, T), (B,) -> (B, T); on policy, where the PPO ratio is exactly 1.

    The value is -advantage and the gradient -advantage * grad log p, as of the paper's Eq. 12 with its ratio at 1.
    """
    p = token_log_probs(at_least_float32(student_logits), completion_ids)
    return -advantages[:, None] * (p - p.detach()).exp()


def token_weights(mask: torch.Tensor, active: torch.Tensor, normalize: str) -> torch.Tensor:
    """How much each token counts, (B, T), (B,) -> (B, T); the scalar loss is (loss * weights).sum(), whatever the micro-batches.

    "all_rows" mean over rows of each row's token mean, inactive rows counting as 0 (what the paper's runs and TRL do);
    "active_rows" the same over active rows; "active_tokens" mean over all tokens of active rows. No active row: all 0.
    """
    mask = mask * active[:, None].to(mask)
    if normalize == "active_tokens":
        return mask / mask.sum().clamp(min=1)
    rows = len(mask) if normalize == "all_rows" else active.sum().clamp(min=1)
    return mask / mask.sum(1, keepdim=True).clamp(min=1) / rows


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
