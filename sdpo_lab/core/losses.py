"""The losses as pure tensor functions, to be checked against the paper line by line.

B attempts, T tokens, V vocabulary entries, K of them in the support; P problems, G attempts at
each. p is the student, q the teacher. sg: stop-gradient, .detach(). Nothing is checked here:
`sdpo_lab.losses` has the same functions for use from outside, which refuse bad arguments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: The tail bucket holds at least this much mass, as in the released code: log(0) is not met.
SMALLEST_TAIL = 1e-7
#: `importance_weights` clamps log p - log p_old to ± this before exp, as in the released code. It
#: bounds what exp is given, and has to do neither with `log_ratio` nor with advantage_clip.
LARGEST_LOG_RATIO = 20


# -- divergences of two distributions -------------------------------------------------------------


def divergence(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Divergence of two distributions, given as log-probabilities, (..., K) -> (...).

    alpha 0: forward KL(q||p). alpha 1: reverse KL(p||q), the paper's Eq. 1. Between: the
    generalised Jensen-Shannon divergence (1-alpha) KL(p||m) + alpha KL(q||m) with
    m = (1-alpha) p + alpha q, which tends to 0 at both ends: the family jumps there, in the paper's
    code and in TRL alike.
    """
    if alpha == 0:
        return kl(teacher, student)
    if alpha == 1:
        return kl(student, teacher)
    student_share = student + math.log1p(-alpha)
    teacher_share = teacher + math.log(alpha)
    middle = torch.logaddexp(student_share, teacher_share)
    return (1 - alpha) * kl(student, middle) + alpha * kl(teacher, middle)


def kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(a||b) = sum of a (log a - log b) from log-probabilities, (..., K) -> (...).

    An entry without mass in `a`, whose log is -inf, adds nothing.
    """
    mass = a.exp()
    log_of_ratio = (a - b).masked_fill(a == -torch.inf, 0)
    return (mass * log_of_ratio).sum(-1)


def top_k_support(
    student_logits: Tensor, teacher_logits: Tensor, top_k: int, add_tail: bool
) -> tuple[Tensor, Tensor]:
    """Both log-distributions on the student's `top_k` tokens (paper A.3).

    (..., V) -> (..., K+1) with a tail bucket for the rest of the mass, or (..., K) renormalised.
    """
    size = min(top_k, student_logits.shape[-1])
    support = student_logits.detach().topk(size, -1).indices
    student_topk_log_probs = on_support(student_logits, support, add_tail)
    teacher_topk_log_probs = on_support(teacher_logits, support, add_tail)
    return student_topk_log_probs, teacher_topk_log_probs


def on_support(logits: Tensor, support: Tensor, add_tail: bool) -> Tensor:
    """The log-distribution on the tokens of `support` (..., K); see `top_k_support`."""
    chosen = logits.gather(-1, support)
    log_probs = chosen - logits.logsumexp(-1, keepdim=True)
    if add_tail:
        return torch.cat([log_probs, tail(log_probs)], -1)
    return log_probs - log_probs.logsumexp(-1, keepdim=True)


def tail(log_probs: Tensor) -> Tensor:
    """log(1 - sum of p), the mass outside the support, (..., K) -> (..., 1)."""
    inside = log_probs.logsumexp(-1, keepdim=True)
    inside = inside.clamp(max=-SMALLEST_TAIL)
    return torch.log(-torch.expm1(inside))


# -- SDPO -----------------------------------------------------------------------------------------


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
    """SDPO's loss of every token, (B, T, V), (B, T, V), (B, T) -> (B, T).

    No gradient reaches the teacher.

    "full_logits"    the divergence over the whole vocabulary (Eq. 1)
    "topk_logits"    the divergence over the student's top k, the rest in a tail bucket (A.3)
    "sampled_token"  -sg(A) log p(y) with the log-ratio A of the sampled token. Its gradient
                     estimates that of the reverse KL from that token alone (§4.2); its value means
                     nothing, and may be negative
    "sequence"       the same with the mean of A over the attempt's tokens that `mask` (B, T)
                     counts, all of them by default (§4.2, in no released code)

    `clip` clamps the log-ratio to ±clip wherever it is the advantage: alpha 1, "sampled_token",
    "sequence" (§5). `sdpo_lab.losses.distillation_loss` raises TypeError for an argument that is
    not a tensor; ValueError for shapes that do not go together, an unknown mode, a number out of
    its range (alpha 0 to 1, top_k from 1, clip above 0), and for `clip` with another alpha.
    """
    student = at_least_float32(student_logits)
    teacher = at_least_float32(teacher_logits.detach())
    # objective.token_losses has these two again, where the advantage may be mixed with GRPO's
    if mode in ("sampled_token", "sequence"):
        student_log_prob = token_log_probs(student, completion_ids)
        teacher_log_prob = token_log_probs(teacher, completion_ids)
        advantage = log_ratio(student_log_prob, teacher_log_prob, clip)
        if mode == "sequence":
            advantage = attempt_mean(advantage, mask)
        return -advantage * student_log_prob

    if mode == "topk_logits":
        log_p, log_q = top_k_support(student, teacher, top_k, add_tail)
    else:
        log_p = student.log_softmax(-1)
        log_q = teacher.log_softmax(-1)
    if clip is None:
        return divergence(log_p, log_q, alpha)
    # the reverse KL with its advantage clamped
    advantage = log_ratio(log_p, log_q, clip)
    return -(log_p.exp() * advantage).sum(-1)


def attempt_mean(advantage: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the tokens that `mask` counts, all by default, (B, T) -> (B, 1)."""
    if mask is None:
        mask = torch.ones_like(advantage)
    total = (advantage * mask).sum(-1, keepdim=True)
    return total / mask.sum(-1, keepdim=True).clamp(min=1)


def log_ratio(student: Tensor, teacher: Tensor, clip: float | None = None) -> Tensor:
    """SDPO's advantage log q - log p, from log-probabilities (Prop. 2.1), (...) -> (...).

    Without gradient; clamped to ±clip. A token that the student cannot write, whose log p is -inf,
    has none.
    """
    impossible = student.detach() == -torch.inf
    advantage = (teacher - student).detach().masked_fill(impossible, 0)
    return advantage if clip is None else advantage.clamp(-clip, clip)


def importance_weights(log_prob: Tensor, old_log_prob: Tensor, clip: float) -> Tensor:
    """min(p / p_old, clip) of the sampled tokens, without gradient, (...) -> (...).

    Weighs their losses when the batch was sampled from older weights. As in the released code there
    is no lower bound.
    """
    log_weight = (log_prob - old_log_prob).detach()
    log_weight = log_weight.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return log_weight.exp().clamp(max=clip)


# -- GRPO -----------------------------------------------------------------------------------------


def group_advantages(rewards: Tensor, scale: bool = False) -> Tensor:
    """GRPO's advantage, the reward minus the group's mean, (P, G) -> (P, G).

    `scale` divides it by the group's standard deviation + 1e-4 (TRL).
    """
    # rounding must not make eight thirds differ from their mean
    all_the_same = (rewards == rewards[:, :1]).all(1, keepdim=True)
    mean = rewards.mean(1, keepdim=True)
    centred = (rewards - mean).masked_fill(all_the_same, 0)
    if not scale or rewards.shape[1] == 1:
        return centred
    return centred / (rewards.std(1, keepdim=True) + 1e-4)


def policy_loss(
    student_logits: Tensor,
    completion_ids: Tensor,
    advantages: Tensor,
    old_log_probs: Tensor | None = None,
    epsilon: float = 0.2,
    epsilon_high: float = 0.28,
) -> Tensor:
    """GRPO's loss of every token with PPO's clip (Eq. 12 without its rollout-engine weight).

    -min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) with r = p / p_old.

    (..., V), (...), advantages that broadcast to (...) -> (...). `old_log_probs` (...) are those
    from when the attempts were sampled; None: on policy, r is 1.
    """
    log_prob = token_log_probs(at_least_float32(student_logits), completion_ids)
    if old_log_probs is None:
        old_log_probs = log_prob.detach()
    ratio = (log_prob - old_log_probs).exp()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


# -- both -----------------------------------------------------------------------------------------


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """log p of each token, (..., V), (...) -> (...)."""
    chosen = logits.gather(-1, ids[..., None])[..., 0]
    return chosen - logits.logsumexp(-1)


def token_weights(mask: Tensor, active: Tensor, normalize: str) -> Tensor:
    """How much each token counts in the scalar loss (loss * weights).sum(), (B, T), (B,) -> (B, T).

    "all_rows"       mean over rows of each row's token mean, inactive rows counting as 0 (what the
                     paper's runs and TRL do)
    "active_rows"    the same over active rows
    "active_tokens"  mean over all tokens of active rows

    Without an active row all are 0. They are made for a whole batch, so that micro-batches change
    nothing.
    """
    mask = mask * active[:, None].to(mask)
    if normalize == "active_tokens":
        return mask / mask.sum().clamp(min=1)
    rows: Tensor | int = len(mask)
    if normalize == "active_rows":
        rows = active.sum().clamp(min=1)
    tokens_of_row = mask.sum(1, keepdim=True).clamp(min=1)
    return mask / tokens_of_row / rows


def at_least_float32(logits: Tensor) -> Tensor:
    """float64 as it is, anything else as float32."""
    return logits if logits.dtype == torch.float64 else logits.float()
