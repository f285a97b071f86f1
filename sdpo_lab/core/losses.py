"""The losses as pure tensor functions: what a reader should be able to check against the paper line by line.

B attempts, T tokens, V vocabulary entries, K of them in the support. p is the student, q the teacher.
"""

from __future__ import annotations

import math

import torch

from sdpo_lab.core.checks import checked

#: The tail bucket holds at least this much mass, exp(-16.1), as in the released code: log(0) must not be reached.
SMALLEST_TAIL = 1e-7


@checked("student", "teacher", alpha=(float, 0, 1))
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


@checked("a", "b")
def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """KL(a||b) of log-probabilities, (..., K) -> (...); an entry without mass in `a` adds nothing."""
    return (a.exp() * (a - b).masked_fill(a == -torch.inf, 0)).sum(-1)


@checked("student_logits", "teacher_logits", top_k=(int, 1))
def top_k_support(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, top_k: int, add_tail: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both log-distributions on the student's `top_k` tokens, (..., V) -> (..., K+1) with tail or (..., K) renormalised (paper A.3)."""
    chosen = student_logits.detach().topk(min(top_k, student_logits.shape[-1]), -1).indices
    both = [
        logits.gather(-1, chosen) - logits.logsumexp(-1, keepdim=True)
        for logits in (student_logits, teacher_logits)
    ]
    if not add_tail:
        return tuple(log_probs - log_probs.logsumexp(-1, keepdim=True) for log_probs in both)
    return tuple(torch.cat([log_probs, tail(log_probs)], -1) for log_probs in both)


@checked("log_probs")
def tail(log_probs: torch.Tensor) -> torch.Tensor:
    """Log of the mass outside the support, (..., K) -> (..., 1)."""
    inside = log_probs.logsumexp(-1, keepdim=True).clamp(max=-SMALLEST_TAIL)
    return torch.log(-torch.expm1(inside))


@checked("logits", ids="ids")
def token_log_probs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """log p of each token, (..., V), (...) -> (...)."""
    return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)


@checked(
    "student_logits",
    "teacher_logits",
    ids="completion_ids",
    mode=("full_logits", "topk_logits", "sampled_token", "sequence"),
    alpha=(float, 0, 1),
    top_k=(int, 1),
    clip=(float, 1e-9),
)
def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    completion_ids: torch.Tensor,
    *,
    mode: str = "topk_logits",
    alpha: float = 1.0,
    top_k: int = 20,
    add_tail: bool = True,
    clip: float | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """SDPO's loss of every token, (B, T, V), (B, T, V), (B, T) -> (B, T). No gradient reaches the teacher.

    "full_logits" and "topk_logits" are divergences over the vocabulary or the student's top k (Eq. 1, A.3).
    "sampled_token" is -sg(A) log p(y) with the log-ratio A of the sampled token, whose gradient estimates that of the
    reverse KL from that token alone (§4.2; its value means nothing, and may be negative). "sequence" gives every token
    of an attempt the mean of A over those that `mask` (B, T) counts, all of them by default (§4.2, in no released code).
    `clip` clamps the log-ratio to ±clip wherever it is the advantage: alpha 1, "sampled_token", "sequence" (§5).
    Raises TypeError for what is no tensor, ValueError for tensors whose shapes do not go together, an unknown mode, a number out of its range
    (alpha 0 to 1, top_k from 1, clip above 0), and for `clip` with another alpha.
    """
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    if mode in ("sampled_token", "sequence"):
        log_prob = token_log_probs(student, completion_ids)
        credit = log_ratio(log_prob, token_log_probs(teacher, completion_ids), clip)
        if mode == "sequence":
            mask = torch.ones_like(credit) if mask is None else mask
            credit = (credit * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
        return -credit * log_prob
    if mode == "topk_logits":
        p, q = top_k_support(student, teacher, top_k, add_tail)
    else:
        p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    if clip is None:
        return divergence(p, q, alpha)
    if alpha != 1:
        raise ValueError(
            f"clip={clip} needs alpha=1, got {alpha}: only the reverse KL has the log-ratio as its advantage"
        )
    return -(p.exp() * log_ratio(p, q, clip)).sum(-1)


@checked("student", "teacher", clip=(float, 1e-9))
def log_ratio(
    student: torch.Tensor, teacher: torch.Tensor, clip: float | None = None
) -> torch.Tensor:
    """SDPO's advantage log q - log p of given log-probabilities (Prop. 2.1), clamped to ±clip, without gradient, (...) -> (...)."""
    advantage = (teacher - student).detach().masked_fill(student.detach() == -torch.inf, 0)
    return advantage if clip is None else advantage.clamp(-clip, clip)


@checked("log_prob", "old_log_prob", clip=(float, 1e-9))
def importance_weights(
    log_prob: torch.Tensor, old_log_prob: torch.Tensor, clip: float
) -> torch.Tensor:
    """min(p / p_old, clip) of the sampled tokens, without gradient, (...) -> (...): weights their losses when the batch was
    sampled from older weights. As in the released code there is no lower bound, and the log-ratio is clamped to ±20 first."""
    return (log_prob - old_log_prob).detach().clamp(-20, 20).exp().clamp(max=clip)


@checked("rewards")
def group_advantages(rewards: torch.Tensor, scale: bool = False) -> torch.Tensor:
    """GRPO: reward minus the group's mean, and with `scale` over its standard deviation + 1e-4 (TRL), (P, G) -> (P, G)."""
    same = (rewards == rewards[:, :1]).all(
        1, keepdim=True
    )  # rounding must not make eight thirds differ from their mean
    centred = (rewards - rewards.mean(1, keepdim=True)).masked_fill(same, 0)
    return (
        centred / (rewards.std(1, keepdim=True) + 1e-4)
        if scale and rewards.shape[1] > 1
        else centred
    )


@checked("student_logits", ids="completion_ids", epsilon=(float, 0, 1), epsilon_high=(float, 0))
def policy_loss(
    student_logits: torch.Tensor,
    completion_ids: torch.Tensor,
    advantages: torch.Tensor,
    old_log_probs: torch.Tensor | None = None,
    epsilon: float = 0.2,
    epsilon_high: float = 0.28,
) -> torch.Tensor:
    """GRPO's loss of every token with PPO's clip, (..., V), (...), advantages broadcast to (...) -> (...): Eq. 12 without its
    rollout-engine weight. `old_log_probs` (...) of the tokens when the attempts were sampled; None: on policy, the ratio is 1."""
    log_prob = token_log_probs(at_least_float32(student_logits), completion_ids)
    ratio = (log_prob - (log_prob.detach() if old_log_probs is None else old_log_probs)).exp()
    return -torch.minimum(
        ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantages
    )


@checked("mask", normalize=("all_rows", "active_rows", "active_tokens"))
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
